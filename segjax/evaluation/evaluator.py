"""Scoring a network on a split under one protocol, every example exactly once."""

from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from segjax import metrics
from segjax.data.splits import Split
from segjax.evaluation.labeller import Labeller, Plan
from segjax.evaluation.protocol import Protocol
from segjax.evaluation.result import Example, Result, examples
from segjax.evaluation.sums import Sums
from segjax.network import Model, Network


class Evaluator:
    """Scores networks of one model on one split.

    Args:
        config: run config; reads `eval.metrics`, `eval.pictures`, `loss.blocks` and `loader`.
        model: model of the networks to score.
        mesh: devices; the weights are replicated on all of them.
        split: split to score.
        protocol: evaluation protocol.
        class_weights: class weights of the loss, or None.
        details: whether to include metrics of whole images.

    Raises:
        InputError: if a metric is unknown.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        mesh: Mesh,
        split: Split,
        protocol: Protocol,
        *,
        class_weights: tuple[float, ...] | None = None,
        details: bool = False,
    ):
        self.split, self.protocol = split, protocol
        self.metrics = metrics.build(
            model.spec, class_weights=class_weights, more=config.eval.metrics, details=details
        )
        self.labeller = Labeller(
            model,
            mesh,
            protocol,
            metrics=self.metrics,
            blocks=config.loss.blocks,
            loader=config.loader,
        )
        self.plan = self.labeller.plan(split.scan.sizes)
        self._pictures = config.eval.pictures

    def compile(self, network: Network) -> None:
        """Compiles what scoring a network needs, as far as that is known before."""
        self.labeller.compile(network, self.plan)

    def names(self, result: Result) -> list[str]:
        """Names of the images in a result."""
        return [self.split.source.name(int(index)) for index in result.index]

    def __call__(
        self,
        network: Network,
        *,
        progress: Callable[[int], None] = lambda done: None,
        observe: Callable[[int, Example], None] | None = None,
    ) -> Result:
        """Scores a network. The host sums counts in int64 and float64; the device never divides.

        Args:
            network: network to score.
            progress: called with the number of batches done.
            observe: called for every image of this process with its data set index and `Example`.
        """
        sums = Sums(self.metrics, _panel_indices(self.plan, self._pictures))
        outputs = self.labeller.batches(network, self.split.source, self.plan)
        for done, (rows, batch, out) in enumerate(outputs, 1):
            sums.add(rows, batch, out)
            if observe is not None:
                for index, example in examples(batch, out["prediction"]).items():
                    observe(index, example)
            progress(done)
        return sums.result(self.labeller.programs)


def _panel_indices(plan: Plan, pictures: int) -> set[int]:
    """Data set indices of panel images, evenly spread over this process's images."""
    processes, process = jax.process_count(), jax.process_index()
    mine = [i for _, rows in plan for i in np.split(rows, processes)[process] if i >= 0]
    if not mine or not pictures:
        return set()
    mine.sort()
    return {int(mine[i]) for i in np.linspace(0, len(mine) - 1, pictures).round().astype(int)}

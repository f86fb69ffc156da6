"""A network ready to label photographs: what `predict` and a user's script hold.

import segjax

net = segjax.load("runs/fcn8s")
labels = net.label(image)  # uint8 [H, W, 3] of any size -> uint8 [H, W]
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from segjax import initial_weights
from segjax import network as networks
from segjax.data import catalog
from segjax.data.sources import Source
from segjax.data.spec import VOID, DatasetSpec
from segjax.evaluation import protocol as protocols
from segjax.evaluation.labeller import Labeller
from segjax.evaluation.protocol import Protocol
from segjax.evaluation.result import cut
from segjax.network import Network


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image with its labels.

    Attributes:
        index: of the image in its source.
        image: uint8 [H, W, 3].
        label: uint8 [H, W], classes.
        before: uint8 [H, W], the labels before a CRF, or None where there is none.
        uncertainty: float32 [H, W], the variance of the softmax over passes, averaged over classes;
            None where there is one pass.
        scores: float32 [H, W, K], or None where they were not asked for.
    """

    index: int
    image: np.ndarray
    label: np.ndarray
    before: np.ndarray | None
    uncertainty: np.ndarray | None
    scores: np.ndarray | None


class Predictor:
    """A network that labels images of any size under one protocol.

    Args:
        config: of the run or recipe.
        network: the weights.
        mesh: the devices that they lie on.
        step: of the weights, 0 where they are of no run.
        trained: the protocol that the run was evaluated under while it trained, or None.
        protocol, crf: in place of the config's own, see `evaluation.protocol.resolve`.

    Attributes:
        network: the weights, `network.model` what they are of.
        step: of the weights.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        network: Network,
        mesh: Mesh,
        *,
        step: int = 0,
        trained: Protocol | None = None,
        protocol: str = "",
        crf: str = "",
    ):
        self.network, self.mesh, self.step = network, mesh, step
        self._config, self._trained = config, trained
        self._texts = {"views_text": protocol, "crf_text": crf}
        self._labellers: dict[tuple[Protocol, bool], Labeller] = {}
        self.protocol(np.array([[1, 1]]))  # what is wrong with the texts is said here

    @property
    def spec(self) -> DatasetSpec:
        """The classes and their colours."""
        return self.network.model.spec

    @property
    def programs(self) -> int:
        """How many programs of the network and its views have run."""
        return sum(labeller.programs for labeller in self._labellers.values())

    def protocol(self, sizes: np.ndarray) -> Protocol:
        """The protocol that images of these sizes, int32 [N, 2], are labelled under."""
        split = self._trained.split if self._trained is not None else ""
        chosen = protocols.resolve(
            self._config, sizes, split=split, trained=self._trained, **self._texts
        )
        return dataclasses.replace(chosen, limit=0)

    def labelled(
        self, source: Source, sizes: np.ndarray, *, scores: bool = False
    ) -> Iterator[Labelled]:
        """Labels a source, a batch at a time; images of one size come together.

        Args:
            source: whose truth is not looked at.
            sizes: int32 [N, 2], of its images.
            scores: whether they are given, too.
        """
        protocol = self.protocol(sizes)
        if (protocol, scores) not in self._labellers:
            self._labellers[protocol, scores] = Labeller(
                self.network.model,
                self.mesh,
                protocol,
                metrics=(),
                blocks=self._config.loss.blocks,
                loader=self._config.loader,
                keep_scores=scores,
            )
        labeller = self._labellers[protocol, scores]
        for _, batch, out in labeller.batches(self.network, source, labeller.plan(sizes)):
            images, labels = cut(batch, batch["image"]), cut(batch, out["prediction"])
            maps = {key: cut(batch, out[key]) for key in out.keys() & set(_MAPS)}
            for index, label in labels.items():
                more = {key: maps[key][index] if key in maps else None for key in _MAPS}
                yield Labelled(index, images[index], label, **more)

    def label(self, image: np.ndarray) -> np.ndarray:
        """The classes of an image: uint8 [H, W, 3] RGB -> uint8 [H, W]."""
        (found,) = self._of_arrays([image])
        return found.label

    def scores(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """The class scores of images of any sizes, before softmax.

        With several views these are the logarithms of the fused probabilities, or the fused scores,
        as the protocol has it; behind a CRF those of the CRF.

        Args:
            images: uint8 [H, W, 3] RGB each; an array [N, H, W, 3] does.

        Returns:
            float32 [H, W, K] of each image.
        """
        found = self._of_arrays(images, scores=True)
        return [one.scores for one in found if one.scores is not None]

    def _of_arrays(
        self, images: np.ndarray | Sequence[np.ndarray], *, scores: bool = False
    ) -> list[Labelled]:
        source = _Arrays(images)
        sizes = np.array([source[i][1].shape for i in range(len(source))], np.int32)
        return sorted(self.labelled(source, sizes, scores=scores), key=lambda found: found.index)


_MAPS = ("before", "uncertainty", "scores")


class _Arrays:
    """Images in memory as a source without truth: every label is VOID."""

    def __init__(self, images: np.ndarray | Sequence[np.ndarray]):
        self._images = [np.asarray(image) for image in images]
        for image in self._images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    "An image is uint8 [H, W, 3], RGB of 0 to 255; got "
                    f"{image.dtype} {list(image.shape)}."
                )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[index]
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The number of an image."""
        return str(index)


def load(
    workdir: str | os.PathLike,
    *,
    step: str = "best",
    weights: str = "raw",
    protocol: str = "",
    crf: str = "",
    devices: Sequence[jax.Device] | None = None,
) -> Predictor:
    """A trained network from its run folder.

    Args:
        workdir: the run folder.
        step: "best", "latest" or a step's number.
        weights: "raw" or "ema" (averaged).
        protocol, crf: as the flags of `predict`; the run's own by default.
        devices: all by default.

    Raises:
        InputError: if there is no such checkpoint, or a protocol or CRF is not known.
    """
    run = networks.load(pathlib.Path(workdir), str(step), weights, devices)
    trained = Protocol.from_json(run.meta["protocol"])
    return Predictor(
        run.config,
        run.network,
        run.mesh,
        step=run.step,
        trained=trained,
        protocol=protocol,
        crf=crf,
    )


def pretrained(
    config: ml_collections.ConfigDict,
    spec: DatasetSpec | None = None,
    *,
    protocol: str = "",
    crf: str = "",
) -> Predictor:
    """The network of a recipe with the weights that it names.

    Args:
        config: the recipe.
        spec: of the classes that the weights know; that of the config's data set by default.
        protocol, crf: in place of the config's.

    Raises:
        InputError: if it names no weights, or they do not fit.
    """
    spec = catalog.load(**config.data).spec if spec is None else spec
    network, mesh = initial_weights.pretrained(config, spec)
    return Predictor(config, network, mesh, protocol=protocol, crf=crf)

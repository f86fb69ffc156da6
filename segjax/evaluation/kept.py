"""Evaluation with every output: scores, label maps, the worst images, a superpixel vote."""

import pathlib

import jax
import numpy as np

from segjax.evaluation import kept_labels, report, worst
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.result import Example
from segjax.evaluation.superpixel_vote import Vote
from segjax.network import Network
from segjax.pictures import label_maps, layout
from segjax.runs import progress


def evaluate(
    evaluator: Evaluator,
    network: Network,
    path: pathlib.Path,
    origin: report.Origin,
    vote: Vote | None = None,
) -> None:
    """Scores a network, prints the scores and writes them with the label maps and pictures.

    Args:
        evaluator: an evaluator with `details`.
        network: network to score.
        path: JSON file of scores, see `report.path_of`; other files are written beside it.
        origin: origin of the network.
        vote: superpixel vote, or None.
    """
    spec, names = network.model.spec, evaluator.split.source.name
    ranking = worst.Worst()

    def observe(index: int, example: Example, marginals: np.ndarray) -> None:
        labels.add(names(index), example[2])
        ranking.add(index, example, marginals)
        if vote is not None:
            vote.add(*example)

    line = progress.ProgressLine("batch", len(evaluator.plan))
    with kept_labels.Writer(path, spec) as labels:
        result = evaluator(network, progress=line.show, observe=observe)
    line.close()
    if jax.process_index() != 0:
        return
    pictures = {"worst": ranking.draw(spec, names)}
    if result.maps:
        pictures["-".join(result.maps)] = label_maps.panel(
            result.panel,
            spec,
            before=result.maps.get("before", ()),
            uncertainty=result.maps.get("uncertainty", ()),
        )
    for name, picture in pictures.items():
        if picture is not None:
            layout.write_png(path.parent / "pictures" / f"{path.stem}-{name}.png", picture)
    print(report.table(result, spec))
    report.write(path, result, evaluator.protocol, origin, evaluator.names(result))
    print(f"Written: {path} (programs compiled: {result.programs})")
    if vote is not None:
        print(vote.table(result.report))
        print(f"Written: {vote.write(path, result.report)}")

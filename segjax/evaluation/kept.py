"""Evaluation with every output: scores, label maps, the worst images, a superpixel vote."""

import pathlib

import jax
from jax.experimental import multihost_utils

from segjax.evaluation import kept_labels, report, worst
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.result import Example
from segjax.evaluation.result import mark as mark_of
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
    spec, source = network.model.spec, evaluator.split.source

    def observe(index: int, example: Example) -> None:
        labels.add(source.name(index), example[2])
        if vote is not None:
            vote.add(*example)

    line = progress.ProgressLine("batch", len(evaluator.plan))
    with kept_labels.Writer(path, spec) as labels:
        result = evaluator(network, progress=line.show, observe=observe)
        mark = mark_of(evaluator.names(result), result.marginals)
        labels.sign(mark)
    line.close()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("label maps are written")
    if jax.process_index() != 0:
        return
    pictures = {"worst": worst.draw(result, source, kept_labels.Reader(path, mark), spec)}
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
        print(f"Written: {vote.write(path, result.report, mark)}")

"""Scores a checkpoint of a run under a stated protocol.

    segjax evaluate --workdir=DIR [--split=val] [--step=best] [--weights=raw] [--data_root=DIR]
    python -m segjax.evaluate --workdir=DIR ...

Prints IoU and accuracy of every class with their means. The run folder gets `eval-<split>.json`,
the scores with their protocol; `.npz`, the counts of every image; `-labels.zip`, the label maps;
and a picture of the worst images. Without further flags the number that the training stored comes
back to the last digit. With one of the next four flags the files have other names.

    --protocol="deeplab_v3_ms_flip"        other views; presets and keys: segjax/evaluation/views.py
    --crf="deeplab_v1, theta_alpha=60"     a fully connected CRF behind the network: segjax/crf
    --weights=ema                          the averaged weights
    --statistics=train                     batch norms' statistics estimated again over that split

`--crf=none` takes a run's CRF away. `--superpixels=slic` adds what a vote within superpixels makes
of the predictions, and the best score that any labelling of those superpixels could reach.
"""

import dataclasses
import pathlib

import jax
from absl import flags, logging

from segjax import cli, network, sharding
from segjax.data import catalog
from segjax.data.spec import DatasetSpec
from segjax.data.splits import Split, open_split
from segjax.errors import InputError
from segjax.evaluation import kept, report, superpixel_vote
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.protocol import Protocol, Statistics
from segjax.runs import progress
from segjax.training import assembly, norm_statistics


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("workdir", "split", "step", "weights", "protocol", "crf", "data_root", "distributed")
    flags.DEFINE_string("statistics", "", "split to estimate batch norms' statistics over")
    cli.define_recipe("superpixels", "recipe of a classical method, whose regions vote")


def main(_argv: list[str]) -> None:
    """Prints the scores and writes them into the run folder."""
    cli.start_processes()
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir)
    run = network.load(workdir, given.step, given.weights)
    config, trained = cli.place_data(run.config), Protocol.from_json(run.meta["protocol"])
    dataset = catalog.load(**config.data)
    _check_classes(workdir, run.network.model.spec, dataset.spec)
    split = open_split(dataset, given.split or config.eval.split, cache=config.loader.cache)
    if not split.scan.pixels.any():
        logging.warning("%s: all pixels of the split %s are void: no score.", workdir, split.name)
    protocol = protocols.resolve(
        config,
        run.bucket,
        split=split.name,
        views_text=given.protocol,
        crf_text=given.crf,
    )
    net = run.network
    if given.statistics:
        net, statistics = _estimated(
            run, open_split(dataset, given.statistics, named_by="--statistics")
        )
        protocol = dataclasses.replace(protocol, statistics=statistics)
    path = report.path_of(
        workdir,
        split.name,
        views="" if protocol.views == trained.views else protocol.views.name,
        weights=given.weights,
        more="statistics" if given.statistics else "",
        crf="" if protocol.crf == trained.crf else protocol.crf.name if protocol.crf else "no_crf",
    )
    evaluator = Evaluator(
        config,
        net.model,
        run.mesh,
        split,
        protocol,
        class_weights=run.class_weights,
        details=True,
    )
    vote = None
    if given.superpixels is not None:
        vote = superpixel_vote.Vote(given.superpixels, net.model.num_classes)
    origin = report.Origin(run.step, given.weights, split.scan.fingerprint, run.meta["fingerprint"])
    kept.evaluate(evaluator, net, path, origin, vote)


def _check_classes(workdir: pathlib.Path, before: DatasetSpec, now: DatasetSpec) -> None:
    if (before.classes, before.table) != (now.classes, now.table):
        raise InputError(
            f"{workdir} was trained on other classes ({', '.join(before.classes)}) than the "
            f"data set has now ({', '.join(now.classes)})."
        )


def _estimated(run: network.Trained, split: Split) -> tuple[network.Network, Statistics]:
    """The network with statistics of its norms estimated over a split, and what the file says."""
    config = run.config.copy_and_resolve_references()
    data, config.mesh.space = run.mesh.devices.shape
    # Batches are those of the training, so no row fills them up: as many devices as they divide by.
    rows = max(n for n in range(1, data + 1) if config.batch_size % n == 0)
    devices = run.mesh.devices[:rows].ravel().tolist()
    training = assembly.assemble(config, run.network.model.spec, run.class_weights, devices)
    net = jax.device_put(run.network, sharding.replicated(training.mesh))
    batches = norm_statistics.batches_of(training, split)
    line = progress.ProgressLine("batch of statistics", batches)
    net = norm_statistics.estimated(net, training, split, progress=line.show)
    line.close()
    return jax.device_put(net, sharding.replicated(run.mesh)), Statistics(split.name, batches)


VERB = cli.Verb(
    define_flags, main, moved={"compare": "it is a verb now: python -m segjax.compare A B"}
)

if __name__ == "__main__":
    VERB.run()

"""Evaluates a checkpoint: python -m segjax.evaluate --workdir=DIR [--split=val] [--step=best].

`--protocol="deeplab_v3_ms_flip"` sets how, in place of the run's own: see segjax/protocol.py.
`--crf="deeplab_v1, theta_alpha=60"` puts a fully connected CRF behind it: see segjax/crf.
`--statistics=train` first estimates the batch norms' statistics again over that split.
`--superpixels=configs/slic.py` also says what a vote within superpixels makes of the predictions,
and the best that any labelling of those superpixels could reach.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from segjax import cli
from segjax.data import catalog
from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.evaluation import report, superpixel_vote
from segjax.evaluation.protocol import parse
from segjax.pictures import label_maps, layout
from segjax.runs import progress
from segjax.training import assembly, norm_statistics


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("workdir", "split", "step", "weights", "protocol", "crf", "distributed")
    flags.DEFINE_string("statistics", "", "split they are estimated over; '': as trained")
    config_flags.DEFINE_config_file(
        "superpixels",
        None,
        "recipe of a classical method, whose regions vote; its keys can be set too",
    )


def main(_argv: list[str]) -> None:
    """Prints the scores and writes them into the run folder."""
    cli.start_processes()
    workdir = pathlib.Path(flags.FLAGS.workdir)
    parts, ts, meta = assembly.restore(workdir, flags.FLAGS.step)
    config = parts.config
    split = flags.FLAGS.split or config.eval.split
    dataset = catalog.load(**config.data)
    if dataset.spec.classes != parts.spec.classes or dataset.spec.table != parts.spec.table:
        raise InputError(
            f"{workdir} was trained on other classes ({', '.join(parts.spec.classes)}) than the "
            f"data set has now ({', '.join(dataset.spec.classes)})."
        )
    part = assembly.open_split(dataset, config, split)
    how = evaluation.protocol(parts, split, part.scan.sizes, flags.FLAGS.protocol, flags.FLAGS.crf)
    own = not flags.FLAGS.protocol or how["views"] == parse(config.eval.protocol).to_json()
    own_crf = how["crf"] == evaluation.crf_of(config)
    if own and split == config.eval.split:
        how["bucket"] = meta["protocol"]["bucket"]
    weights = ts.weights(flags.FLAGS.weights)
    if flags.FLAGS.statistics:
        over = assembly.open_split(dataset, config, flags.FLAGS.statistics)
        batches = norm_statistics.batches_of(parts, over)
        how["statistics"] = {"split": flags.FLAGS.statistics, "batches": batches}
        weights = weights[0], _statistics(parts, weights, over, batches)
    path = report.path_of(
        workdir,
        split,
        views="" if own else how["views"]["name"],
        weights=flags.FLAGS.weights,
        more="statistics" if flags.FLAGS.statistics else "",
        crf="" if own_crf else how["crf"]["name"] if how["crf"] else "no_crf",
    )
    evaluator = evaluation.Evaluator(parts, part.source, part.scan.sizes, how, details=True)
    result, vote = _evaluate(evaluator, weights, path)
    if jax.process_index() == 0:
        print(report.table(result, parts.spec))
        report.write(
            path,
            result,
            how,
            parts.spec,
            step=int(ts.step),
            weights=flags.FLAGS.weights,
            data=part.scan.fingerprint,
            checkpoint=meta["fingerprint"],
            names=evaluator.names(result),
        )
        print(f"Written: {path} (programs compiled: {result.programs})")
        if vote is not None:
            print(vote.table(result.report))
            print(f"Written: {vote.write(path, result.report)}")


def _statistics(parts: assembly.Experiment, weights, split: assembly.Split, batches: int):
    line = progress.ProgressLine("batch of statistics", batches)
    found = norm_statistics.estimate(parts, *weights, split, progress=line.show)
    line.close()
    return found


def _evaluate(
    evaluator: evaluation.Evaluator, weights, path: pathlib.Path
) -> tuple[evaluation.Result, superpixel_vote.Vote | None]:
    """Evaluates, asks superpixels to vote, writes label maps and pictures of the worst images."""
    spec, names = evaluator.experiment.spec, evaluator.source.name
    recipe = flags.FLAGS.superpixels
    vote = None if recipe is None else superpixel_vote.Vote(recipe, spec.num_classes)
    worst = report.Worst()

    def observe(index, example, marginals):
        labels.add(names(index), example[2])
        worst.add(index, example, marginals)
        if vote is not None:
            vote.add(*example)

    line = progress.ProgressLine("batch", len(evaluator.plan))
    with report.new_labels(path, spec) as labels:
        result = evaluator(*weights, progress=line.show, observe=observe)
    line.close()
    pictures = {"worst": worst.draw(spec, names)}
    if result.maps:
        pictures["-".join(result.maps)] = label_maps.panel(result.panel, spec, **result.maps)
    for name, picture in pictures.items():
        if picture is not None and jax.process_index() == 0:
            layout.write_png(path.parent / "pictures" / f"{path.stem}-{name}.png", picture)
    return result, vote


VERB = cli.Verb(
    define_flags, main, moved={"compare": "it is a verb now: python -m segjax.compare A B"}
)

if __name__ == "__main__":
    VERB.run()

"""Evaluates a checkpoint: python -m segjax.evaluate --workdir=DIR [--split=val] [--step=best].

`--superpixels=configs/slic.py` also says what a vote within superpixels makes of the predictions,
and the best that any labelling of those superpixels could reach.
"""

import pathlib

import jax
from absl import flags
from ml_collections import config_flags

from segjax import cli, distributed, evaluation, experiment, superpixels, tracking
from segjax.data import catalog
from segjax.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", "", "the run folder")
_SPLIT = flags.DEFINE_string("split", "", "of the data set; the config's by default")
_STEP = flags.DEFINE_string("step", "best", "best, latest, or a step's number")
_WEIGHTS = flags.DEFINE_enum("weights", "raw", ["raw", "ema"], "raw or averaged ones")
_SUPERPIXELS = config_flags.DEFINE_config_file(
    "superpixels", None, "recipe of a classical method, whose regions vote; its keys can be set too"
)


def main(_argv: list[str]) -> None:
    """Prints the scores and writes them into the run folder."""
    distributed.start()
    workdir = pathlib.Path(_WORKDIR.value)
    parts, ts, meta = experiment.restore(workdir, _STEP.value)
    config = parts.config
    split = _SPLIT.value or config.eval.split
    dataset = catalog.load(**config.data)
    if dataset.spec.classes != parts.spec.classes or dataset.spec.table != parts.spec.table:
        raise InputError(
            f"{workdir} was trained on other classes ({', '.join(parts.spec.classes)}) than the "
            f"data set has now ({', '.join(dataset.spec.classes)})."
        )
    part = experiment.open_split(dataset, config, split)
    how = evaluation.protocol(parts, split, part.scan.sizes)
    if split == config.eval.split:
        how["bucket"] = meta["protocol"]["bucket"]
    weights = ts.weights(_WEIGHTS.value)
    recipe = _SUPERPIXELS.value
    vote = None if recipe is None else superpixels.Vote(recipe, parts.spec.num_classes)
    line = tracking.ProgressLine("batch", len(evaluation.plan_of(how, part.scan.sizes)))
    result = evaluation.evaluate(
        parts,
        *weights,
        part.source,
        part.scan.sizes,
        how,
        progress=line.show,
        observe=None if vote is None else vote.add,
    )
    line.close()
    if jax.process_index() == 0:
        print(evaluation.table(result, parts.spec))
        path = evaluation.write(
            workdir, result, how, parts.spec, step=int(ts.step), weights=_WEIGHTS.value
        )
        print(f"Written: {path}")
        if vote is not None:
            print(vote.table(result.report))
            print(f"Written: {vote.write(path, result.report)}")


if __name__ == "__main__":
    distributed.define_flags()
    flags.adopt_module_key_flags(distributed)
    cli.run(main)

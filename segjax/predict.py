"""Labels photographs with a trained network, a network with given weights or a classical method.

    segjax predict --workdir=DIR --input=PATH [--output=out] [--save=labels,overlay]
    segjax predict --config=RECIPE --input=PATH [--output=out] [--save=...]
    python -m segjax.predict ...

PATH is an image or a folder of images, read as a data set's: with its sub-folders, without hidden
files, upright. Every image becomes files `<name>...` in OUTPUT, named after it; sub-folders stay.
Images without a result are listed at the end, with status 1; the others are done. Nothing that is
there is written over without `--overwrite`, and no photograph ever. `--save` is a comma list of
what is written.

For a run folder, or a recipe whose `config.init.from` names weights:

    labels       <name>.png: class indices with a palette inside (default)
    ids          <name>.png in their place: the ids of the data set's own masks, such as 0 and 255,
                 with a palette inside; of a class with several ids the one listed first
    overlay      <name>_overlay.png: the classes in colours over the image (default)
    crf          <name>_crf.png: before and after the CRF (default where there is one)
    uncertainty  <name>_uncertainty.npy and .png: the variance of the softmax over passes with
                 dropout (default where the protocol takes samples)
    heatmaps     of a classifier, such as imagenet_heatmap: <name>.png, the argmax in 16 bits;
                 <name>_argmax.png in colours; <name>_heatmaps.png, the maps of the best classes;
                 <name>_heatmaps.npz, all of them. Goes with no other value.

For a recipe of a classical method, such as slic:

    labels       <name>.png: region numbers in 16 bits (default)
    boundaries   <name>_boundaries.png: the regions' boundaries on the image (default)
    mean         <name>_mean.png: the regions in their mean colours (default)

`--protocol` and `--crf` replace those of the run, as in `segjax evaluate`. A run's data are not
needed; where a recipe's data set tells its classes, `--data_root` says where it lies.
"""

import pathlib

import ml_collections
from absl import flags

from segjax import cli, heatmaps, prediction
from segjax import network as networks
from segjax.compilers import cache
from segjax.data.spec import MAX_CLASSES, DatasetSpec, hls_palette
from segjax.errors import InputError
from segjax.photographs import heatmaps as heatmap_files
from segjax.photographs import labels, regions, saves, source


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "workdir", "input", "step", "protocol", "crf", "data_root", "overwrite")
    cli.define(output=("out", "folder for what --save names"))
    flags.DEFINE_string("save", "", "comma list of what is written; the defaults are listed above")


def main(_argv: list[str]) -> None:
    """Writes what --save names of every photograph."""
    given = flags.FLAGS
    config = None if given.config is None else cli.config()
    if (config is None) != bool(given.workdir):
        raise InputError(
            "Either --workdir=DIR, the folder of a trained run, or --config=RECIPE, of a network "
            "that comes with its weights or of a classical method."
        )
    classical = config is not None and bool(config.method.name)
    cache.keep()
    values = saves.parse(given.save, saves.OF_METHODS if classical else saves.OF_NETWORKS)
    if (given.protocol or given.crf) and (classical or saves.HEATMAPS in values):
        raise InputError("--protocol and --crf apply only to labels of segmentation networks.")
    if not given.input:
        raise InputError("--input=PATH is needed, an image or a folder of images.")
    output = pathlib.Path(given.output)
    # Reads every file: a damaged one is known before anything is written.
    images, sizes, left_out = source.find(pathlib.Path(given.input), output).examined()
    if len(images):
        options = {"overwrite": given.overwrite}
        if classical:
            regions.write(config, images, output, values, left_out=left_out, **options)
        elif saves.HEATMAPS in values:
            heatmap_files.write(_classifier(config), images, output, left_out=left_out, **options)
        else:
            net = _predictor(config)
            labels.write(net, images, sizes, output, values, inputs=images.paths, **options)
    left_out.finish()


def _classifier(config: ml_collections.ConfigDict | None) -> ml_collections.ConfigDict:
    if config is None or not config.predict.classes:
        raise InputError(
            "--save=heatmaps needs a classifier, whose config.predict.classes is a file of class "
            "names: --config=imagenet_heatmap."
        )
    return config


def _predictor(config: ml_collections.ConfigDict | None) -> prediction.Predictor:
    """The network of the run folder, or of the config."""
    given = flags.FLAGS
    texts = {"protocol": given.protocol, "crf": given.crf}
    if config is None:
        run = networks.load(pathlib.Path(given.workdir), given.step)
        return prediction.from_run(run, **texts)
    spec = None
    if config.predict.classes:
        names = heatmaps.read_class_names(config.predict.classes)
        if len(names) > MAX_CLASSES:
            raise InputError(
                f"{config.predict.classes}: {len(names)} classes; label images hold at most "
                f"{MAX_CLASSES}: --save=heatmaps writes what such a classifier sees."
            )
        spec = DatasetSpec("classifier", tuple(names), hls_palette(len(names)), table=())
    return prediction.pretrained(config, spec, **texts)


VERB = cli.Verb(
    define_flags, main, moved={"config.predict.output": "it is a flag now: --save=heatmaps"}
)

if __name__ == "__main__":
    VERB.run()

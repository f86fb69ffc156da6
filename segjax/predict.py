"""Labels images: python -m segjax.predict --workdir=DIR --input=PATH --output=DIR.

`--config=FILE` in place of a run folder takes a network that comes with its weights, such as
configs/imagenet_heatmap.py, or a classical method, such as configs/slic.py.
"""

import concurrent.futures
import io
import pathlib

import ml_collections
import numpy as np
from absl import flags

from segjax import cli, files, heatmaps, initial_weights, study
from segjax.data import catalog, png, sources
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import evaluator as evaluation
from segjax.pictures import label_maps, layout
from segjax.runs import progress
from segjax.training import assembly, state

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "workdir", "input", "step", "protocol", "crf")
    cli.define(output=("out", "folder for the label images and overlays"))


class Images:
    """Image files as a source without truth: every label is VOID.

    Args:
        paths: the files.
    """

    def __init__(self, paths: list[pathlib.Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = sources.read_image(self.paths[index], upright=True)
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The file's name without its suffix."""
        return self.paths[index].stem


def find_images(path: pathlib.Path) -> list[pathlib.Path]:
    """The image itself, or the images of a folder, sorted.

    Raises:
        InputError: if there are none, or two would be written under one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"--input: there is no file or folder {str(path)!r}.")
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"--input: {path} holds no image ({', '.join(SUFFIXES)}).")
    names = [p.stem for p in paths]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"--input: {path} holds several images named {double[0]!r}.")
    return paths


def main(_argv: list[str]) -> None:
    """Labels what --input names with a run's network, or as a config says."""
    configured = flags.FLAGS.config is not None
    if configured == bool(flags.FLAGS.workdir):
        raise InputError(
            "Either --workdir=DIR, the folder of a trained run, or --config=FILE, of a network "
            "that comes with its weights or of a classical method."
        )
    labels = not configured or (
        not cli.config().method.name and cli.config().predict.output == "labels"
    )
    if (flags.FLAGS.protocol or flags.FLAGS.crf) and not labels:
        raise InputError("--protocol and --crf: only of a network that labels images.")
    images = Images(find_images(pathlib.Path(flags.FLAGS.input)))
    with concurrent.futures.ThreadPoolExecutor() as pool:  # and every file is known to be whole
        sizes = np.array(list(pool.map(lambda i: images[i][1].shape, range(len(images)))))
    output = pathlib.Path(flags.FLAGS.output)
    named = ((images.name(i), images[i][0]) for i in range(len(images)))
    if configured and cli.config().method.name:
        study.predict(cli.config(), named, len(images), output)
    elif configured and cli.config().predict.output == "heatmaps":
        heatmaps.predict(cli.config(), named, len(images), output)
    elif configured:
        found = pretrained(cli.config(), sizes, flags.FLAGS.protocol, flags.FLAGS.crf)
        write_labels(*found, images, sizes, output)
    else:
        parts, ts, meta = assembly.restore(pathlib.Path(flags.FLAGS.workdir), flags.FLAGS.step)
        how = meta["protocol"]
        if flags.FLAGS.protocol:
            how = evaluation.protocol(parts, how["split"], sizes, flags.FLAGS.protocol)
        how = how | {"crf": evaluation.crf_of(parts.config, flags.FLAGS.crf)}
        write_labels(parts, ts, how, images, sizes, output)


def pretrained(
    config: ml_collections.ConfigDict, sizes: np.ndarray, views: str = "", crf: str = ""
) -> tuple[assembly.Experiment, state.TrainState, dict]:
    """The network of a config with the weights it names, and the protocol of its data set.

    Args:
        config: the recipe.
        sizes: int32 [N, 2], of the images.
        views, crf: in place of the config's own, see `evaluation.protocol`.

    Raises:
        InputError: if it names no weights, or they do not fit.
    """
    if config.predict.output != "labels":
        raise InputError(
            f"config.predict.output: unknown {config.predict.output!r}; known: labels, heatmaps."
        )
    start = initial_weights.start_of(config)
    if start is None:
        raise InputError("config.init.from: a network without a run needs weights.")
    initial_weights.adopt_preprocess(config, start)
    parts = assembly.assemble(config, catalog.load(**config.data).spec, None)
    how = evaluation.protocol(parts, config.eval.split, sizes, views, crf)
    return parts, initial_weights.initial_state(parts, start), how


def write_labels(
    parts: assembly.Experiment,
    ts: state.TrainState,
    how: dict,
    images: Images,
    sizes: np.ndarray,
    output: pathlib.Path,
) -> None:
    """Writes OUTPUT/<stem>.png (class indices, palette inside) and OUTPUT/<stem>_overlay.png.

    A CRF adds OUTPUT/<stem>_crf.png, what it made of the network's labels. A protocol with samples
    adds OUTPUT/<stem>_uncertainty.npy (float32 [H, W]: the variance of the softmax over passes,
    averaged over classes) and a picture of it, 0 to its maximum.

    Args:
        parts, ts: the network and its weights.
        how: the protocol that it was evaluated under.
        images, sizes: what is labelled, and int32 [N, 2].
        output: folder.
    """
    evaluator = evaluation.Evaluator(parts, images, sizes, how | {"limit": 0})
    palette = [*parts.spec.palette]
    line, done = progress.ProgressLine("image", len(images)), 0
    for _, batch, out in evaluator.batches(ts.params, ts.batch_stats):
        before = evaluation.cut(batch, out["before"]) if "before" in out else {}
        for index, (image, _, label) in evaluation.examples(batch, out["prediction"]).items():
            stem = images.name(index)
            files.write(output / f"{stem}.png", png.encode_indices(label, palette))
            overlay = label_maps.overlay(image, label, parts.spec)
            layout.write_png(output / f"{stem}_overlay.png", overlay)
            if index in before:
                refined = label_maps.before_after(image, before[index], label, parts.spec)
                layout.write_png(output / f"{stem}_crf.png", refined)
            done += 1
        if "uncertainty" in out:
            for index, variance in evaluation.cut(batch, out["uncertainty"]).items():
                _write_uncertainty(output, images.name(index), variance)
        line.show(done)
    line.close()
    print(
        f"Written: {done} label images and overlays in {output} (step {int(ts.step)}, "
        f"programs compiled: {evaluator.programs})."
    )


def _write_uncertainty(output: pathlib.Path, stem: str, variance: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, variance)
    files.write(output / f"{stem}_uncertainty.npy", buffer.getvalue())
    picture = label_maps.heat_map(variance, float(variance.max()))
    layout.write_png(output / f"{stem}_uncertainty.png", picture)


VERB = cli.Verb(define_flags, main)

if __name__ == "__main__":
    VERB.run()

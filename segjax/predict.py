"""Labels images: python -m segjax.predict --workdir=DIR --input=PATH --output=DIR.

`--config=FILE` in place of a run folder takes a network that comes with its weights, such as
configs/imagenet_heatmap.py, or a classical method, such as configs/slic.py.
"""

import concurrent.futures
import io
import pathlib

import numpy as np
from absl import flags

from segjax import cli, files, heatmaps, prediction, study
from segjax.data import png, sources
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.pictures import label_maps, layout
from segjax.runs import progress

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
    else:
        texts = {"protocol": flags.FLAGS.protocol, "crf": flags.FLAGS.crf}
        if configured:
            net = prediction.pretrained(cli.config(), **texts)
        else:
            net = prediction.load(flags.FLAGS.workdir, step=flags.FLAGS.step, **texts)
        write_labels(net, images, sizes, output)


def write_labels(
    net: prediction.Predictor, images: Images, sizes: np.ndarray, output: pathlib.Path
) -> None:
    """Writes OUTPUT/<stem>.png (class indices, palette inside) and OUTPUT/<stem>_overlay.png.

    A CRF adds OUTPUT/<stem>_crf.png, what it made of the network's labels. A protocol with samples
    adds OUTPUT/<stem>_uncertainty.npy (float32 [H, W]: the variance of the softmax over passes,
    averaged over classes) and a picture of it, 0 to its maximum.

    Args:
        net: the network, and the protocol that it labels under.
        images, sizes: what is labelled, and int32 [N, 2].
        output: folder.
    """
    palette = [*net.spec.palette]
    line, done = progress.ProgressLine("image", len(images)), 0
    for found in net.labelled(images, sizes):
        stem, label = images.name(found.index), found.label
        files.write(output / f"{stem}.png", png.encode_indices(label, palette))
        overlay = label_maps.overlay(found.image, label, net.spec)
        layout.write_png(output / f"{stem}_overlay.png", overlay)
        if found.before is not None:
            both = label_maps.before_after(found.image, found.before, label, net.spec)
            layout.write_png(output / f"{stem}_crf.png", both)
        if found.uncertainty is not None:
            _write_uncertainty(output, stem, found.uncertainty)
        done += 1
        line.show(done)
    line.close()
    print(
        f"Written: {done} label images and overlays in {output} (step {net.step}, "
        f"programs compiled: {net.programs})."
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

"""Labels images: python -m segjax.predict --workdir=DIR --input=PATH --output=DIR."""

import concurrent.futures
import pathlib

import numpy as np
from absl import flags

from segjax import cli, evaluation, experiment, state, tracking, visualize
from segjax.data import png, sources
from segjax.data.spec import VOID
from segjax.errors import InputError

_WORKDIR = flags.DEFINE_string("workdir", "", "the run folder")
_INPUT = flags.DEFINE_string("input", "", "an image, or a folder of them")
_OUTPUT = flags.DEFINE_string("output", "out", "folder for the label images and overlays")
_STEP = flags.DEFINE_string("step", "best", "best, latest, or a step's number")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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
    """Writes OUTPUT/<stem>.png (class indices, palette inside) and OUTPUT/<stem>_overlay.png."""
    if not _WORKDIR.value:
        raise InputError("--workdir=DIR, the folder of a trained run, is needed.")
    images = Images(find_images(pathlib.Path(_INPUT.value)))
    with concurrent.futures.ThreadPoolExecutor() as pool:  # and every file is known to be whole
        sizes = np.array(list(pool.map(lambda i: images[i][1].shape, range(len(images)))))
    parts, ts, meta = experiment.restore(pathlib.Path(_WORKDIR.value), _STEP.value)
    how = meta["protocol"] | {"limit": 0}
    plan = evaluation.plan_of(how, sizes)
    output = pathlib.Path(_OUTPUT.value)
    palette = [*parts.spec.palette]
    line, done = tracking.ProgressLine("image", len(images)), 0
    for batch, out in evaluation.run(parts, ts.params, ts.batch_stats, images, how, plan):
        predicted = state.local_rows(out["prediction"])
        for row in np.flatnonzero(batch["weight"]):
            height, width = batch["size"][row]
            image = batch["image"][row, :height, :width]
            label = predicted[row, :height, :width]
            stem = images.name(int(batch["index"][row]))
            visualize.write_file(output / f"{stem}.png", png.encode_indices(label, palette))
            overlay = visualize.overlay(image, label, parts.spec)
            visualize.write_png(output / f"{stem}_overlay.png", overlay)
            done += 1
        line.show(done)
    line.close()
    print(f"Written: {done} label images and overlays in {output} (step {int(ts.step)}).")


if __name__ == "__main__":
    cli.run(main)

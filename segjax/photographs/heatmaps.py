"""Photographs as a classifier sees them: the argmax and heat maps of classes as files."""

import pathlib

import cv2
import ml_collections
import numpy as np

from segjax import files, heatmaps
from segjax.data.spec import DatasetSpec, hls_palette
from segjax.photographs import saves
from segjax.photographs.source import LeftOut, Photographs
from segjax.pictures import label_maps, layout
from segjax.runs import progress

_CELL = 320  # width of a map in the picture
_SHOWN = 8  # classes with a colour where the argmax is drawn; the others are grey


def write(
    config: ml_collections.ConfigDict,
    photographs: Photographs,
    output: pathlib.Path,
    *,
    left_out: LeftOut,
    overwrite: bool = False,
) -> None:
    """Writes what a classifier sees in each image, and prints its best classes.

    <name>.png: the argmax of every pixel, 16 bit. <name>_argmax.png: the same in colours over the
    image. <name>_heatmaps.png: the maps of the best classes. <name>_heatmaps.npz: `scores`, float16
    [h, w, K], of all classes at the network's resolution.

    Args:
        config: see `heatmaps.Maps`; images are first resized to `predict.short_side`.
        photographs: the images.
        output: folder.
        left_out: gets the photographs that the network refuses.
        overwrite: whether files of these names may be replaced.

    Raises:
        InputError: if weights or class names are missing or do not fit, or if a file is there.
    """
    values = frozenset([saves.HEATMAPS])
    saves.check_free(photographs, output, values, photographs.paths, overwrite=overwrite)
    classifier = heatmaps.Maps(config)
    names = classifier.names
    line = progress.ProgressLine("image", len(photographs))
    written = 0
    for done, (name, image) in enumerate(photographs.named(), 1):
        with left_out.guard(name):
            image = heatmaps.to_short_side(image, config.predict.short_side)
            maps = classifier(image)
            _write_image(image, maps, output / name, names)
            written += 1
            best = [f"{names[i]} {maps['probability'][i]:.2f}" for i in maps["best"]]
            print(f"{name}: {', '.join(best)}", flush=True)
        line.show(done)
    line.close()
    if written:
        print(f"Written: {saves.told(values, written)} in {output}.")


def _write_image(
    image: np.ndarray, maps: dict[str, np.ndarray], start: pathlib.Path, names: list[str]
) -> None:
    """Writes the files of one image; `start` is their path up to what distinguishes them."""
    argmax, colored, best, scores = (
        start.with_name(f"{start.name}{ending}") for ending in saves.ENDINGS[saves.HEATMAPS]
    )
    files.write(argmax, cv2.imencode(".png", maps["argmax"])[1].tobytes())
    layout.write_png(colored, argmax_picture(image, maps["argmax"], names))
    layout.write_png(best, best_picture(image, maps, names))
    files.write_npz(scores, scores=maps["scores"].astype(np.float16))


def argmax_picture(image: np.ndarray, argmax: np.ndarray, names: list[str]) -> np.ndarray:
    """The image under the classes that cover most of it; all others share a grey.

    uint8 [H, W, 3], uint16 [H, W] -> uint8 [H', W', 3].
    """
    counts = np.bincount(argmax.ravel(), minlength=len(names))
    shown = [int(i) for i in np.argsort(-counts, kind="stable")[:_SHOWN] if counts[i]]
    label = np.full(argmax.shape, len(shown), np.uint8)
    for index, cls in enumerate(shown):
        label[argmax == cls] = index
    spec = DatasetSpec(
        name="classifier",
        classes=(*(names[cls] for cls in shown), "other classes"),
        palette=(*hls_palette(len(shown)), (128, 128, 128)),
        table=(),
    )
    return label_maps.overlay(image, label, spec)


def best_picture(image: np.ndarray, maps: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """The image and the maps of its best classes in two rows: uint8 [H', W', 3].

    Args:
        image: uint8 [H, W, 3].
        maps: of `heatmaps.maps`.
        names: of all classes.
    """
    height = max(1, round(_CELL * image.shape[0] / image.shape[1]))

    def cell(title: str, picture: np.ndarray) -> np.ndarray:
        fitted = layout.center(layout.fit(picture, height, _CELL, cv2.INTER_AREA), height, _CELL)
        return layout.join([layout.strip(title, _CELL, 15), fitted], axis=0)

    cells = [cell("image", image)]
    for k, cls in enumerate(maps["best"]):
        color = label_maps.heat_map(maps["best_maps"][..., k], 1.0)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
        mixed = cv2.addWeighted(grey, 0.35, color, 0.65, 0)
        cells.append(cell(f"{names[cls]} {maps['probability'][cls]:.2f}", mixed))
    half = -(-len(cells) // 2)
    rows = [cells[:half], cells[half:]]
    return layout.join([layout.join(row, axis=1, gap=6) for row in rows if row], axis=0, gap=6)

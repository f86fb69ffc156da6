"""What a classifier sees where: the score maps of all its classes, for an image of any size.

Long, Shelhamer, Darrell 2015, section 3.1, figure 2: a classifier run fully convolutionally.
"""

import functools
import pathlib
from collections.abc import Iterator

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from segjax import files, initial_weights
from segjax.data.spec import DatasetSpec, hls_palette
from segjax.errors import InputError
from segjax.models import resize, row_blocks
from segjax.network import Network
from segjax.pictures import label_maps, layout
from segjax.runs import progress

_CELL = 320  # width of a map in the picture
_SHOWN = 8  # classes with a colour of their own where the argmax is drawn
_BLOCKS = 16  # of rows, for the argmax over all classes at the image's size


class Maps:
    """The maps of a classifier, its weights loaded.

    Args:
        config: `model`, `init`, `preprocess`, `dtype` and `predict` are read.

    Raises:
        InputError: if weights or class names are not there, or do not fit.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.names = _read_names(config.predict.classes)
        self._network, _ = initial_weights.pretrained(config, len(self.names))
        top = min(config.predict.top, len(self.names))
        self._run = jax.jit(functools.partial(maps, window=config.predict.window, top=top))

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [H, W, 3] RGB -> the results of `maps`, on the host."""
        return jax.device_get(self._run(self._network, image))


def maps(network: Network, image: jax.Array, *, window: int, top: int) -> dict[str, jax.Array]:
    """Runs a classifier over an image.

    Args:
        network: of K classes.
        image: uint8 [H, W, 3], RGB.
        window: cells, each way, that the classifier pools over; GoogLeNet's 7.
        top: how many of the best classes get a map at the image's size.

    Returns:
        `scores` float32 [h, w, K], before softmax; `probability` float32 [K]: what the classifier
        says, pooling included, at every place that its window fits, on the average; `best` int32
        [top], the most probable classes; `best_maps` float32 [H, W, top], their softmax at each
        place, nothing pooled; `argmax` uint16 [H, W].
    """
    size = image.shape[:2]
    scores = network(image[None])
    values = scores.values.astype(jnp.float32)
    pooled = resize.apply(values, *(_means(length, window) for length in values.shape[1:3]))
    probability = jax.nn.softmax(pooled[0], axis=-1).mean((0, 1))
    best = jax.lax.top_k(probability, top)[1]
    local = jax.nn.softmax(values, axis=-1)[..., best]
    rows = row_blocks.over(
        lambda logits, _: jnp.argmax(logits, axis=-1).astype(jnp.uint16),
        scores,
        jnp.zeros((1, *size), jnp.uint8),
        blocks=_BLOCKS,
    )
    return {
        "scores": values[0],
        "probability": probability,
        "best": best,
        "best_maps": resize.apply(local, *scores.matrices(size))[0],
        "argmax": row_blocks.join(rows, size[0])[0],
    }


def predict(
    config: ml_collections.ConfigDict,
    images: Iterator[tuple[str, np.ndarray]],
    count: int,
    output: pathlib.Path,
) -> None:
    """Writes what a classifier sees in each image, and prints its best classes.

    `<stem>.png`: the argmax at each pixel, 16 bit; `<stem>_argmax.png`: coloured, over the image;
    `<stem>_heatmaps.png`: the maps of the best classes; `<stem>_heatmaps.npz`: `scores`, float16
    [h, w, K], all of them as the network gives them.

    Args:
        config: see `Maps`; `predict.short_side` resizes images first.
        images: names and uint8 [H, W, 3].
        count: how many there are.
        output: folder.
    """
    classifier = Maps(config)
    line = progress.ProgressLine("image", count)
    for done, (stem, image) in enumerate(images, 1):
        image = to_short_side(image, config.predict.short_side)
        found = classifier(image)
        encoded = cv2.imencode(".png", found["argmax"])[1].tobytes()
        files.write(output / f"{stem}.png", encoded)
        picture = argmax_picture(image, found["argmax"], classifier.names)
        layout.write_png(output / f"{stem}_argmax.png", picture)
        picture = best_picture(image, found, classifier.names)
        layout.write_png(output / f"{stem}_heatmaps.png", picture)
        scores = found["scores"].astype(np.float16)
        files.write_npz(output / f"{stem}_heatmaps.npz", scores=scores)
        line.show(done)
        best = [f"{classifier.names[i]} {found['probability'][i]:.2f}" for i in found["best"]]
        print(f"{stem}: {', '.join(best)}", flush=True)
    line.close()
    print(f"Written: {count} argmax images, heat maps and pictures in {output}.")


def argmax_picture(image: np.ndarray, argmax: np.ndarray, names: list[str]) -> np.ndarray:
    """The image under the classes that cover most of it; the others share a grey.

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


def best_picture(image: np.ndarray, found: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """The image and the maps of its best classes, in two rows: uint8 [H', W', 3]."""
    height = max(1, round(_CELL * image.shape[0] / image.shape[1]))

    def cell(title: str, picture: np.ndarray) -> np.ndarray:
        fitted = layout.center(layout.fit(picture, height, _CELL, cv2.INTER_AREA), height, _CELL)
        return layout.join([layout.strip(title, _CELL, 15), fitted], axis=0)

    cells = [cell("image", image)]
    for k, cls in enumerate(found["best"]):
        color = label_maps.heat_map(found["best_maps"][..., k], 1.0)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
        mixed = cv2.addWeighted(grey, 0.35, color, 0.65, 0)
        cells.append(cell(f"{names[cls]} {found['probability'][cls]:.2f}", mixed))
    half = -(-len(cells) // 2)
    rows = [cells[:half], cells[half:]]
    return layout.join([layout.join(row, axis=1, gap=6) for row in rows if row], axis=0, gap=6)


def _means(size: int, window: int) -> np.ndarray:
    """float32 [size - window + 1, size]: means over windows, clipped to a smaller map."""
    window = min(window, size)
    first = np.arange(size - window + 1)[:, None]
    inside = (np.arange(size) >= first) & (np.arange(size) < first + window)
    return inside.astype(np.float32) / window


def to_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] so that min(H, W) is `short_side`; 0 leaves it."""
    if not short_side:
        return image
    scale = short_side / min(image.shape[:2])
    size = [max(1, round(scale * length)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _read_names(file: str) -> list[str]:
    """The class names of a file, a line each."""
    path = initial_weights.find(file, "config.predict.classes")
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    names = [name.strip() for name in names if name.strip()]
    if not names or len(names) > 2**16:
        raise InputError(f"{path}: {len(names)} class names; 1 to 65536 are allowed.")
    return names

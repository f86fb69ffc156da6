"""Heat maps of a classifier: the scores of all its classes at every place of an image of any size.

Long, Shelhamer, Darrell 2015, section 3.1, figure 2: a classifier run fully convolutionally.
"""

import functools

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from segjax import initial_weights
from segjax.errors import InputError
from segjax.models import resize, row_blocks
from segjax.network import Network

_BLOCKS = 16  # of rows, for the argmax over all classes at the image's size


class Maps:
    """The maps of a classifier, its weights loaded.

    Args:
        config: `model`, `init`, `preprocess`, `dtype` and `predict` are read.

    Raises:
        InputError: if weights or class names are not there, or do not fit.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        self.names = read_class_names(config.predict.classes)
        self._network, _ = initial_weights.pretrained(config, len(self.names))
        top = min(config.predict.top, len(self.names))
        self._run = jax.jit(functools.partial(maps, window=config.predict.window, top=top))

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 [H, W, 3] RGB -> the results of `maps`, on the host."""
        on_host: dict[str, np.ndarray] = jax.device_get(self._run(self._network, image))
        return on_host


def maps(network: Network, image: jax.Array, *, window: int, top: int) -> dict[str, jax.Array]:
    """Runs a classifier over an image.

    Args:
        network: of K classes.
        image: uint8 [H, W, 3], RGB.
        window: cells, each way, that the classifier pools over; GoogLeNet's 7.
        top: number of most probable classes that get a map at the image's size.

    Returns:
        `scores` float32 [h, w, K], before softmax; `probability` float32 [K]: what the classifier
        says, pooling included, at every place that its window fits, on the average; `best` int32
        [top], the most probable classes; `best_maps` float32 [H, W, top], their softmax at each
        place, nothing pooled; `argmax` uint16 [H, W].
    """
    size = (image.shape[0], image.shape[1])
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


def read_class_names(file: str) -> list[str]:
    """The class names of `config.predict.classes`, a line each.

    Raises:
        InputError: if there is no such file, or it is not a list of names.
    """
    path = initial_weights.find(file, "config.predict.classes")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(names) > 2**16:
        raise InputError(f"{path}: {len(names)} class names; 1 to 65536 are allowed.")
    return names

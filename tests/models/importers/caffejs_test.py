import functools

import jax
import numpy as np

from segjax import models
from segjax.models import functional, importers
from segjax.models.importers import weight_files
from tests.models.importers import real

FILE = "googlenet_bvlc.safetensors"


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Path -> shape of GoogLeNet with its classifier of 1000 classes."""

    def build(rngs):
        return models.build(
            backbone={"name": "googlenet", "width": 64, "dropout": 0.4},
            head={"name": "classifier"},
            aux=None,
            num_classes=1000,
            dtype="float32",
            rngs=rngs,
        )

    trees = jax.eval_shape(lambda: functional.initial_arrays(build, 0))
    return {path: leaf.shape for path, leaf in functional.by_path(*trees).items()}


@real.needs(FILE)
def test_every_tensor_of_googlenet_is_placed():
    arrays, meta = weight_files.read(real.FOLDER / FILE)
    assert meta == {}
    assert importers.origin_of(arrays, FILE) == "caffejs_googlenet"
    origin = importers.ORIGINS["caffejs_googlenet"]
    found, unused = origin.convert(arrays, shapes())
    match = importers.match(found, shapes(), (), where=FILE, unused=unused)
    assert not match.kept + match.left + list(match.unused)
    assert str(match) == f"{len(arrays)} tensors loaded, 6998552 numbers"
    for theirs, ours in (
        ("conv1/7x7_s2", "backbone/conv1/conv"),
        ("inception_4c/5x5", "backbone/inception_4c/conv5x5/conv"),
        ("inception_5b/pool_proj", "backbone/inception_5b/pool_proj/conv"),
        ("loss3/classifier", "head/classifier"),
    ):
        kernel = match.arrays[f"{ours}/kernel"]
        expected = np.moveaxis(arrays[f"{theirs}_filter"].astype(np.float32), 0, -1)
        np.testing.assert_array_equal(kernel, expected)
        np.testing.assert_array_equal(match.arrays[f"{ours}/bias"], arrays[f"{theirs}_bias"])


def test_unknown_names_are_kept():
    file = {"conv1/7x7_s2_filter": np.zeros((64, 7, 7, 3)), "loss1/conv_filter": np.zeros(2)}
    found, unused = importers.ORIGINS["caffejs_googlenet"].convert(file, ())
    assert list(found) == ["backbone/conv1/conv/kernel", "loss1/conv_filter"]
    assert unused == {}


def test_images_are_blue_green_red():
    preprocess = importers.ORIGINS["caffejs_googlenet"].preprocess
    assert preprocess == {"mean": (123, 117, 104), "std": (1, 1, 1), "bgr": True}

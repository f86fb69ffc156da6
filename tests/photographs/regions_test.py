"""Photographs through classical methods that are simple enough to know the answer."""

import cv2
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from segjax.data import png
from segjax.errors import InputError
from segjax.photographs import regions, source
from segjax.pictures import region_maps


def columns(image: jax.Array, *, count: int) -> jax.Array:
    """`count` upright strips."""
    height, width = image.shape[:2]
    strip = jnp.arange(width, dtype=jnp.int32) * count // width
    return jnp.broadcast_to(strip, (height, width))


def whole(image: jax.Array, box: jax.Array) -> jax.Array:
    """The box."""
    y, x = jnp.mgrid[: image.shape[0], : image.shape[1]]
    return ((y >= box[0]) & (y < box[2]) & (x >= box[1]) & (x < box[3])).astype(jnp.int32)


def config(name: str, box: tuple[int, ...] = (0, 0, 0, 0), **options) -> ml_collections.ConfigDict:
    method = {"name": f"{__name__}:{name}", **options}
    return ml_collections.ConfigDict({"method": method, "predict": {"box": box}})


@pytest.fixture
def images(tmp_path):
    """Two photographs of noise, 12 x 20 and 12 x 9."""
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for name, width in (("a", 20), ("b", 9)):
        cv2.imwrite(
            str(tmp_path / "in" / f"{name}.png"), rng.integers(0, 256, (12, width, 3), np.uint8)
        )
    return source.find(tmp_path / "in")


def read(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def test_photographs_get_a_label_map_its_boundaries_and_its_means(images, tmp_path, capsys):
    regions.write(config("columns", count=3), images, tmp_path / "out")
    for name, image in images.named():
        labels = png.decode_regions((tmp_path / "out" / f"{name}.png").read_bytes(), name)
        assert labels.dtype == np.uint16
        np.testing.assert_array_equal(labels, columns(image, count=3))
        np.testing.assert_array_equal(
            read(tmp_path / "out" / f"{name}_boundaries.png"), region_maps.boundaries(image, labels)
        )
        np.testing.assert_array_equal(
            read(tmp_path / "out" / f"{name}_mean.png"), region_maps.means(image, labels)
        )
    assert "Written: labels, boundaries, mean of 2 images" in capsys.readouterr().out


def test_what_is_asked_for_is_written_and_no_more(images, tmp_path):
    regions.write(config("columns", count=3), images, tmp_path / "out", frozenset(["mean"]))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_mean.png", "b_mean.png"}


def test_a_method_with_a_box_gets_it(images, tmp_path):
    box = (1, 2, 5, 8)
    regions.write(config("whole", box), images, tmp_path / "out", frozenset(["labels"]))
    labels = png.decode_regions((tmp_path / "out" / "a.png").read_bytes(), "a")
    assert labels.sum() == labels[1:5, 2:8].sum() == 24


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 13, 5), (5, 5, 5, 9)])
def test_a_box_must_lie_in_the_image(box, images, tmp_path):
    with pytest.raises(InputError, match="within the 12 x 20 pixels of a"):
        regions.write(config("whole", box), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()

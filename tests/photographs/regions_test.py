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


def write(made, images, output, *values: str, overwrite: bool = False) -> None:
    """As the verb does."""
    left_out = source.LeftOut(len(images))
    regions.write(made, images, output, frozenset(values), left_out=left_out, overwrite=overwrite)
    left_out.finish()


def read(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def test_photographs_get_a_label_map_its_boundaries_and_its_means(images, tmp_path, capsys):
    write(config("columns", count=3), images, tmp_path / "out")
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
    write(config("columns", count=3), images, tmp_path / "out", "mean")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a_mean.png", "b_mean.png"}


def test_a_method_with_a_box_gets_it(images, tmp_path):
    box = (1, 2, 5, 8)
    write(config("whole", box), images, tmp_path / "out", "labels")
    labels = png.decode_regions((tmp_path / "out" / "a.png").read_bytes(), "a")
    assert labels.sum() == labels[1:5, 2:8].sum() == 24


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 0, 13, 5), (5, 5, 5, 9)])
def test_a_box_must_lie_in_the_image(box, images, tmp_path):
    with pytest.raises(InputError, match="within the 12 x 20 pixels of a"):
        write(config("whole", box), images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_photograph_that_is_refused_does_not_stop_the_others(images, tmp_path, capsys):
    slic = ml_collections.ConfigDict(
        {"method": {"name": "slic", "regions": 150}, "predict": {"box": (0, 0, 0, 0)}}
    )
    with pytest.raises(InputError, match="1 of 2 photographs have no result; first: b: .*regions"):
        write(slic, images, tmp_path / "out", "labels")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png"}
    told = capsys.readouterr().out
    assert "Written: labels of 1 image in" in told
    assert "b: " in told
    with pytest.raises(InputError, match="^compactness is -1"):  # told once
        write(ml_collections.ConfigDict(slic.to_dict() | {
            "method": {"name": "slic", "regions": 5, "compactness": -1}
        }), images, tmp_path / "no", "labels")  # fmt: skip


def test_neither_a_photograph_nor_another_result_is_written_over(images, tmp_path):
    made = config("columns", count=3)
    before = {path: path.read_bytes() for path in images.paths}
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"in/a\.png"):
            write(made, images, tmp_path / "in", overwrite=overwrite)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / "in")
        with pytest.raises(InputError, match=r"link/a\.png"):
            write(made, images, tmp_path / "link", overwrite=overwrite)
    assert {path: path.read_bytes() for path in images.paths} == before
    assert len(list((tmp_path / "in").iterdir())) == 2
    write(made, images, tmp_path / "out", "mean")
    with pytest.raises(InputError, match=r"out/a_mean\.png and 1 more: there already; .*--overw"):
        write(made, images, tmp_path / "out")
    assert not (tmp_path / "out" / "a.png").exists()
    write(made, images, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.png").exists()


def test_two_results_of_one_name_are_refused(images, tmp_path):
    images.paths[1].rename(images.paths[1].with_name("a_mean.png"))
    with pytest.raises(InputError, match=r"a_mean\.png would be written twice, for mean of a and"):
        write(config("columns", count=3), source.find(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()

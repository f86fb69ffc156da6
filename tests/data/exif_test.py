"""Orientations of image files, as PIL writes them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from segjax.data import exif, png
from segjax.errors import InputError

KINDS = ("JPEG", "PNG", "WEBP", "TIFF")


def oriented(image: Image.Image, kind: str, orientation: int) -> bytes:
    """An image file that states an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": tags}
    file = io.BytesIO()
    image.save(file, kind, **options | ({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_found_in_every_kind(kind: str, orientation: int):
    assert exif.orientation(oriented(IMAGE, kind, orientation)) == orientation


@pytest.mark.parametrize("kind", [*KINDS, "BMP", "PPM"])
def test_a_file_without_one_is_as_stored(kind: str):
    file = io.BytesIO()
    IMAGE.save(file, kind)
    assert exif.orientation(file.getvalue()) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_a_viewer_turns_them(orientation: int):
    pixels = np.array(IMAGE)
    shown = ImageOps.exif_transpose(Image.open(io.BytesIO(oriented(IMAGE, "PNG", orientation))))
    np.testing.assert_array_equal(exif.upright(pixels, orientation), np.array(shown))
    np.testing.assert_array_equal(
        exif.upright(pixels[..., 0], orientation), np.array(shown)[..., 0]
    )


def test_both_orders_of_bytes_are_read():
    for order, mark in (("little", b"II*\0"), ("big", b"MM\0*")):
        words = [(8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4)]
        block = mark + b"".join(value.to_bytes(size, order) for value, size in words)
        block += (6).to_bytes(2, order) + bytes(6)
        assert exif.orientation(block) == 6
        assert exif.orientation(exif.as_stored(block)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_raise_nothing(kind: str):
    data = oriented(IMAGE, kind, 6)
    rng = np.random.default_rng(0)
    for length in range(min(len(data), 400)):
        assert exif.orientation(data[:length]) in (1, 6)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), 5):
            damaged[place] = rng.integers(256)
        assert 1 <= exif.orientation(bytes(damaged)) <= 8
        exif.as_stored(bytes(damaged))


def test_a_mask_that_would_have_to_be_turned_is_refused():
    for mode in ("L", "P", "RGB"):
        data = oriented(IMAGE.convert(mode), "PNG", 3)
        with pytest.raises(InputError, match=r"^a: a mask with an EXIF orientation \(3\)"):
            png.decode_mask(data, "a")
    with pytest.raises(InputError, match="EXIF orientation"):
        png.decode_regions(oriented(IMAGE.convert("L"), "PNG", 3), "a")
    assert png.decode_mask(oriented(IMAGE.convert("L"), "PNG", 1), "a").shape == (5, 7)

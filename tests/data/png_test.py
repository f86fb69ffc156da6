import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segjax.data import png
from segjax.errors import InputError

PALETTE = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]


def _label(depth: int = 8) -> np.ndarray:
    return np.random.default_rng(depth).integers(0, 2**depth, (13, 19)).astype(np.uint8)


def _write(samples: np.ndarray, depth: int, color_type: int, *, interlaced: bool = False) -> bytes:
    """Writes a PNG that no library writes: any depth, interlaced or not."""
    starts = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first row and column, row and column step of the seven passes
        starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        starts += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    pixels = b""
    for y, x, dy, dx in starts:
        for row in samples[y::dy, x::dx]:
            bits = np.unpackbits(row[:, None], axis=1)[:, 8 - depth :].ravel()
            pixels += b"\0" + np.packbits(bits).tobytes() if bits.size else b""
    header = struct.pack(">IIBB", samples.shape[1], samples.shape[0], depth, color_type)
    chunks = [(b"IHDR", header + bytes([0, 0, interlaced]))]
    if color_type == 3:
        chunks += [(b"PLTE", bytes(range(3 * 2**depth % 256)) or bytes(768)), (b"tRNS", b"\0")]
    chunks += [(b"gAMA", struct.pack(">I", 20000)), (b"IDAT", zlib.compress(pixels))]
    data = png.SIGNATURE
    for kind, body in [*chunks, (b"IEND", b"")]:
        check = struct.pack(">I", zlib.crc32(kind + body))
        data += struct.pack(">I", len(body)) + kind + body + check
    return data


def _save(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("color_type", [0, 3])
def test_samples_of_every_depth_are_read_as_stored(color_type: int, depth: int, interlaced: bool):
    label = _label(depth)
    data = _write(label, depth, color_type, interlaced=interlaced)
    np.testing.assert_array_equal(png.decode_mask(data, "a.png"), label)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_images_of_another_writer_are_read_as_indices(bits: int):
    label = _label(bits)
    image = Image.fromarray(label, "L").convert("P")
    image.putdata(label.ravel().tolist())
    image.putpalette([c for i in range(2**bits) for c in (i, 255 - i, 7)])
    data = _save(image, bits=bits)
    np.testing.assert_array_equal(png.decode_mask(data, "a.png"), label)


def test_colour_masks_are_read_as_rgb():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(png.decode_mask(_save(Image.fromarray(rgb)), "a.png"), rgb)


@pytest.mark.parametrize("count", [2, 3, 256])
def test_written_indices_come_back_and_carry_their_palette(count: int):
    label = (_label().astype(int) % count).astype(np.uint8)
    palette = [(i, 255 - i, i // 2) for i in range(count)]
    data = png.encode_indices(label, palette)
    np.testing.assert_array_equal(png.decode_mask(data, "a.png"), label)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), label)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.array(palette)[label])


def test_an_index_beyond_the_palette_is_black():
    data = png.encode_indices(np.array([[0, 255]], np.uint8), PALETTE)
    colors = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(colors, [[PALETTE[0], (0, 0, 0)]])


def test_labels_of_another_type_and_palettes_too_long_are_refused():
    with pytest.raises(ValueError, match="int64"):
        png.encode_indices(np.zeros((2, 2), np.int64), PALETTE)
    with pytest.raises(ValueError, match="256"):
        png.encode_indices(np.zeros((2, 2), np.uint8), [(0, 0, 0)] * 257)


@pytest.mark.parametrize("missing", [1, 4, 12, 13, 30, 200])
def test_a_truncated_png_is_refused_by_name(missing: int, capfd: pytest.CaptureFixture):
    data = png.encode_indices(_label(), [])
    with pytest.raises(InputError, match=r"a\.png: the PNG is truncated"):
        png.decode_mask(data[:-missing], "a.png")
    assert capfd.readouterr().err == ""


def test_a_damaged_png_is_refused_by_name(capfd: pytest.CaptureFixture):
    data = bytearray(png.encode_indices(_label(), []))
    data[-40] ^= 1
    with pytest.raises(InputError, match=r"a\.png: the PNG is damaged"):
        png.decode_mask(bytes(data), "a.png")
    assert capfd.readouterr().err == ""


def test_pixels_that_end_early_within_whole_chunks_are_refused():
    data = _write(_label()[:6], 8, 0)
    header = png.read_chunks(data, "a.png")[0][1]
    taller = struct.pack(">II", 19, 13) + header[8:]
    data = data.replace(header, taller).replace(
        struct.pack(">I", zlib.crc32(b"IHDR" + header)),
        struct.pack(">I", zlib.crc32(b"IHDR" + taller)),
    )
    with pytest.raises(InputError, match=r"a\.png: the PNG is damaged"):
        png.decode_mask(data, "a.png")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((3, 4), 300, np.uint16)), "16-bit"),
        (Image.new("LA", (3, 4)), "alpha"),
        (Image.new("RGBA", (3, 4)), "alpha"),
    ],
)
def test_16_bit_and_alpha_masks_are_refused(image: Image.Image, message: str):
    with pytest.raises(InputError, match=rf"a\.png: .*{message}"):
        png.decode_mask(_save(image), "a.png")


def test_a_jpeg_is_no_mask():
    file = io.BytesIO()
    Image.new("L", (3, 4)).save(file, "JPEG")
    with pytest.raises(InputError, match=r"a\.png: not a PNG"):
        png.decode_mask(file.getvalue(), "a.png")

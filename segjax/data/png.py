"""Exact reading and writing of index PNGs: masks are the stored numbers, written with a palette.

OpenCV converts a palette to colours and stretches 1, 2 and 4 bit samples to 0..255, which is right
for pictures and wrong for labels. Here OpenCV only inflates and unfilters: the header is patched so
that a palette image reads as grey, and OpenCV sees no chunks but header and pixels. The chunks
follow the PNG specification, third edition, sections 5 and 11.

libpng writes its warnings, such as those of a broken colour profile, to the process's standard
error, where no thread can catch them. `critical` leaves it nothing to warn of.
"""

import struct
import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from segjax.data import exif
from segjax.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_COLOR_TYPE = 9  # its byte in IHDR's data; width and height (4 bytes each) and bit depth precede


class BadFileError(InputError):
    """An unusable file; `kind` groups such files in a scan's summary."""

    def __init__(self, message: str, kind: str = "unreadable"):
        super().__init__(message)
        self.kind = kind


def read_chunks(data: bytes, where: str) -> list[tuple[bytes, bytes]]:
    """(type, data) of every chunk from IHDR to IEND, with verified checksums.

    Raises:
        BadFileError: naming `where`, if the bytes are not a PNG, end early or are damaged.
    """
    if not data.startswith(SIGNATURE):
        raise BadFileError(f"{where}: not a PNG file; masks are stored as PNG.", "not a PNG")
    chunks: list[tuple[bytes, bytes]] = []
    start = len(SIGNATURE)
    while not chunks or chunks[-1][0] != b"IEND":
        head = data[start : start + 8]
        if len(head) < 8:
            raise BadFileError(f"{where}: the PNG is truncated.", "truncated")
        length, kind = struct.unpack(">I4s", head)
        body, check = data[start + 8 : start + 8 + length], data[start + 8 + length :][:4]
        if len(check) < 4:
            raise BadFileError(f"{where}: the PNG is truncated.", "truncated")
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise BadFileError(f"{where}: the PNG is damaged (checksum of a chunk).", "damaged")
        chunks.append((kind, body))
        start += 12 + length
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise BadFileError(f"{where}: the PNG is damaged (no header).", "damaged")
    return chunks


def critical(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The PNG without the chunks that a decoder may ignore: text, profiles, gamma, animation.

    They change no sample that OpenCV returns (it applies no profile and no gamma). Critical chunks
    are those whose name begins with a capital.
    """
    return _assemble([chunk for chunk in chunks if not chunk[0][0] & 0x20])


def decode_mask(data: bytes, where: str) -> np.ndarray:
    """The numbers stored in a PNG.

    Args:
        data: content of the file.
        where: file name for errors, usually the path.

    Returns:
        uint8 [H, W] for a grey or palette image: samples or indices of any bit depth up to 8, never
        rescaled; uint8 [H, W, 3], RGB, for a colour image.

    Raises:
        BadFileError: for 16 bits, alpha, an EXIF orientation, or a file that is not a PNG,
            truncated or damaged.
    """
    chunks = _mask_chunks(data, where)
    header = bytearray(chunks[0][1])
    depth, color_type = header[_COLOR_TYPE - 1], header[_COLOR_TYPE]
    if depth == 16:
        raise BadFileError(f"{where}: a 16-bit mask; only 8-bit label ids are allowed.", "16 bit")
    if color_type in (_GREY_ALPHA, _RGB_ALPHA):
        raise BadFileError(
            f"{where}: a mask with an alpha channel; grey, palette and RGB are allowed.", "alpha"
        )
    if color_type == _PALETTE:
        header[_COLOR_TYPE] = _GREY
    # Without tRNS, gAMA and similar chunks the decoder has nothing to apply to the samples.
    kept = [(b"IHDR", bytes(header))] + [c for c in chunks if c[0] in (b"IDAT", b"IEND")]
    pixels = inflate(_assemble(kept), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadFileError(f"{where}: the PNG is damaged (its pixels).", "damaged")
    if color_type == _RGB:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return pixels if depth == 8 else pixels // (255 // (2**depth - 1))  # undoes libpng's stretch


def decode_regions(data: bytes, where: str) -> np.ndarray:
    """The region numbers in a grey PNG of 8 or 16 bits: uint8 or uint16 [H, W].

    Raises:
        BadFileError: for any other PNG, an EXIF orientation, or a file that is not a PNG, truncated
            or damaged.
    """
    chunks = _mask_chunks(data, where)
    header = chunks[0][1]
    if header[_COLOR_TYPE] != _GREY or header[_COLOR_TYPE - 1] < 8:
        raise BadFileError(
            f"{where}: region numbers must be grey PNGs of 8 or 16 bits.", "not grey"
        )
    pixels = inflate(critical(chunks), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadFileError(f"{where}: the PNG is damaged (its pixels).", "damaged")
    return pixels


def _mask_chunks(data: bytes, where: str) -> list[tuple[bytes, bytes]]:
    """The chunks of a mask; a mask that is to be turned is refused.

    Such a tag is a copy of the photograph's, and nobody knows whether the mask was drawn before the
    photograph was turned or after.
    """
    chunks = read_chunks(data, where)
    turned = exif.orientation(data)
    if turned != 1:
        raise BadFileError(
            f"{where}: a mask with an EXIF orientation ({turned}); a mask is stored upright: "
            "turn its pixels if they are not, and remove the tag.",
            "orientation",
        )
    return chunks


def encode_regions(labels: np.ndarray, where: str) -> bytes:
    """The bytes of a 16-bit grey PNG of region numbers: int [H, W], 0 to 65535.

    Raises:
        InputError: naming `where`, if a number is above 65535.
    """
    if labels.max(initial=0) > 65535:
        raise InputError(
            f"{where}: {labels.max() + 1} regions; a 16-bit label map holds at most 65536."
        )
    return cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes()


def encode_indices(label: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> bytes:
    """The bytes of an 8-bit palette PNG whose indices are the labels.

    Args:
        label: uint8 [H, W].
        palette: RGB colours, 0 to 255, of index 0, 1, ..., at most 256; further indices are black.

    Returns:
        Bytes from which `decode_mask` recovers `label`.

    Raises:
        ValueError: for another type or shape, or a longer palette.
    """
    if label.dtype != np.uint8 or label.ndim != 2:
        raise ValueError(f"label must be uint8 [H, W], got {label.dtype} {label.shape}.")
    colors = np.zeros((max(len(palette), int(label.max()) + 1), 3), np.uint8)
    colors[: len(palette)] = np.array(palette, np.uint8).reshape(-1, 3)
    if len(colors) > 256:
        raise ValueError(f"A PNG palette has at most 256 colours, got {len(colors)}.")
    encoded = cv2.imencode(".png", label)[1].tobytes()
    pixels = [c for c in read_chunks(encoded, "cv2.imencode") if c[0] in (b"IDAT", b"IEND")]
    height, width = label.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _PALETTE, 0, 0, 0)
    return _assemble([(b"IHDR", header), (b"PLTE", colors.tobytes()), *pixels])


def inflate(data: bytes, flags: int) -> np.ndarray | None:
    """cv2.imdecode that prints nothing to stderr; None if it fails."""
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # the caller reports the failure
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _assemble(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    parts = [SIGNATURE]
    for kind, body in chunks:
        check = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I4s", len(body), kind), body, struct.pack(">I", check)]
    return b"".join(parts)

"""EXIF orientation: how the stored pixels of a photograph must be turned to stand upright.

segjax has one rule for all formats and verbs: an image is read upright, as every viewer and
annotation tool shows it, and its mask is one of the upright image. The orientation is a number from
1 (as stored) to 8 in the tag 0x0112 of an EXIF block (CIPA DC-008, section 4.6.4) or of a TIFF's
first directory. It is read and applied here and not by OpenCV, which turns TIFFs even where it is
told not to.
"""

import struct

import numpy as np

_TAG = 0x0112
_SHORT = 3  # the type of the tag's value
_PNG = b"\x89PNG\r\n\x1a\n"


def orientation(data: bytes) -> int:
    """The orientation of an image file, 1 to 8; 1 where it states none or is damaged.

    JPEG (APP1), PNG (eXIf), WebP (EXIF) and TIFF can carry one.
    """
    start = _block(data)
    place = None if start is None else _place(data, start)
    if place is None:
        return 1
    value: int = struct.unpack_from(place[1], data, place[0])[0]
    return value if 1 <= value <= 8 else 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels [H, W, ...] upright; a view of the same pixels for orientation 1."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[rows, columns])


def as_stored(data: bytes) -> bytes:
    """The file without the orientation of a TIFF, whose pixels a decoder then leaves as stored."""
    start = _block(data)
    place = _place(data, start) if start == 0 else None
    if place is None:
        return data
    patched = bytearray(data)
    struct.pack_into(place[1], patched, place[0], 1)
    return bytes(patched)


def _block(data: bytes) -> int | None:
    """Where the TIFF structure with the tags starts in a file: 0 for a TIFF; None without one."""
    if data[:4] in (b"II*\0", b"MM\0*"):
        return 0
    if data.startswith(b"\xff\xd8"):
        return _jpeg_block(data)
    if data.startswith(_PNG):
        return _png_block(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_block(data)
    return None


def _jpeg_block(data: bytes) -> int | None:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        if data[place + 1] == 0xFF:  # a filler before the marker
            place += 1
            continue
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            return place + 10
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _png_block(data: bytes) -> int | None:
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"eXIf":
            return place + 8
        place += 12 + length
    return None


def _webp_block(data: bytes) -> int | None:
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        place += 8
        if kind == b"EXIF":  # some writers repeat JPEG's mark before the block
            return place + 6 if data[place : place + 6] == b"Exif\0\0" else place
        place += length + length % 2
    return None


def _place(data: bytes, start: int) -> tuple[int, str] | None:
    """The offset and the format of the orientation's value in a TIFF structure, if there is one."""
    order = {b"II": "<", b"MM": ">"}.get(data[start : start + 2])
    if order is None:
        return None
    try:
        directory = start + struct.unpack_from(f"{order}I", data, start + 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", data, directory)[0]):
            place = directory + 2 + 12 * entry
            tag, kind = struct.unpack_from(f"{order}HH", data, place)
            if tag == _TAG:
                form = f"{order}H" if kind == _SHORT else f"{order}I"
                struct.unpack_from(form, data, place + 8)
                return place + 8, form
    except struct.error:
        return None
    return None

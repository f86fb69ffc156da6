"""Mutated images, masks and class lists: each is read as it was, or refused in one line.

A file is cut short, has bits flipped, bytes set, a piece taken out, doubled or put in. What may
happen silently is said by the format: PNG has checksums, so nothing may; the coded data of a JPEG,
WebP or TIFF have none, so that a flipped bit in them may give another picture ("other pixels", not
counted as silent, as no reader could know). Sizes never change silently.
"""

import pathlib
import random
from collections.abc import Callable

import cv2
import numpy as np

from experiments.faults import outcome
from experiments.faults.outcome import Outcome
from segjax.data import class_list, png, sources
from segjax.errors import InputError

CHECKED = (".png",)
"""Formats with checksums."""


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Tries `count` files, of every kind and with every mutation in turn."""
    chosen, outcomes, kinds = random.Random(seed), [], [*_samples()]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        suffix, whole = kinds[number % len(kinds)]
        mutate = MUTATIONS[number // len(kinds) % len(MUTATIONS)]
        broken = mutate(whole, chosen)
        if broken == whole:
            continue  # no fault occurred
        case = f"{suffix} {mutate.__name__} {number}"
        path = folder / f"{number}{suffix}"
        path.write_bytes(broken)
        read = _class_list if suffix == ".txt" else _image if suffix != ".mask.png" else _mask
        outcomes.append(read(path, whole, case))
    return outcomes


def _samples() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (61, 83, 3)).astype(np.uint8), (0, 0), 3)
    mask = (picture[..., 0] > 127).astype(np.uint8)
    encoded = [(s, cv2.imencode(s, picture)[1].tobytes()) for s in (".png", ".jpg", ".webp")]
    encoded.append((".tif", cv2.imencode(".tif", picture)[1].tobytes()))
    encoded.append((".mask.png", png.encode_indices(mask, [(0, 0, 0), (255, 0, 0)])))
    names = "\n".join(f"{i} class {i} {i} {2 * i} {3 * i}" for i in range(12))
    return [*encoded, (".txt", names.encode())]


def cut(data: bytes, chosen: random.Random) -> bytes:
    """The file without its end."""
    return data[: chosen.randrange(len(data))]


def flip(data: bytes, chosen: random.Random) -> bytes:
    """One bit flipped."""
    at = chosen.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chosen.randrange(8)]) + data[at + 1 :]


def overwrite(data: bytes, chosen: random.Random) -> bytes:
    """Up to 20 bytes set anew."""
    at, length = chosen.randrange(len(data)), chosen.randrange(1, 20)
    return data[:at] + chosen.randbytes(length) + data[at + length :]


def remove(data: bytes, chosen: random.Random) -> bytes:
    """Up to 20 bytes taken out."""
    at = chosen.randrange(len(data))
    return data[:at] + data[at + chosen.randrange(1, 20) :]


def insert(data: bytes, chosen: random.Random) -> bytes:
    """Up to 20 bytes put in."""
    at = chosen.randrange(len(data))
    return data[:at] + chosen.randbytes(chosen.randrange(1, 20)) + data[at:]


def double(data: bytes, chosen: random.Random) -> bytes:
    """A piece that comes twice."""
    at = chosen.randrange(len(data))
    return data[: at + chosen.randrange(1, 40)] + data[at:]


def head(data: bytes, chosen: random.Random) -> bytes:
    """One of the first 32 bytes set anew: what formats are told by."""
    at = chosen.randrange(min(32, len(data)))
    return data[:at] + chosen.randbytes(1) + data[at + 1 :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut, flip, overwrite, remove, insert, double, head,
)  # fmt: skip


def _image(path: pathlib.Path, whole: bytes, case: str) -> Outcome:
    expected = sources.decode_image(whole, "whole")
    return _judged("a mutated image", path, case, sources.read_image, expected)


def _mask(path: pathlib.Path, whole: bytes, case: str) -> Outcome:
    def read(file: pathlib.Path) -> np.ndarray:
        return png.decode_mask(file.read_bytes(), str(file))

    return _judged("a mutated mask", path, case, read, png.decode_mask(whole, "whole"))


def _judged(fault: str, path: pathlib.Path, case: str, read: Callable, expected) -> Outcome:
    try:
        got = read(path)
    except InputError as error:
        return _refused(fault, path, case, str(error))
    except Exception as error:
        return outcome.unexpected(fault, case, error)
    if np.array_equal(got, expected):
        return Outcome(fault, case, "survived", "the same pixels")
    if got.shape != expected.shape or path.suffix in CHECKED:
        return Outcome(fault, case, "silent", f"{got.shape}, other pixels")
    return Outcome(fault, case, "survived", "other pixels: the format has no checksum")


def _class_list(path: pathlib.Path, whole: bytes, case: str) -> Outcome:
    fault = "a mutated class list"
    try:
        spec = class_list.read(path)
    except InputError as error:
        return _refused(fault, path, case, str(error))
    except Exception as error:
        return outcome.unexpected(fault, case, error)
    return Outcome(fault, case, "survived", f"{spec.num_classes} classes as the text has them")


def _refused(fault: str, path: pathlib.Path, case: str, said: str) -> Outcome:
    clear = path.name in said and "\n" not in said
    return Outcome(fault, case, "refused" if clear else "traceback", said[:300])

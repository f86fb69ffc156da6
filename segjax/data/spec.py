"""The meaning of label values: VOID and `DatasetSpec`."""

import colorsys
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from segjax.errors import InputError

VOID = 255
"""The class index of a pixel without truth; it counts in no loss and no score."""

_UNDECLARED = 254  # marks ids in the lookup table that the spec does not declare
MAX_CLASSES = 254

CHANNELS = ("red", "green", "blue")

_SHOWN = 5  # undeclared ids or colours named in one message

Color = tuple[int, int, int]


def hls_palette(count: int) -> tuple[Color, ...]:
    """RGB colours spread evenly over the hue circle; lightness alternates between neighbours."""
    colors = []
    for i in range(count):
        lightness = (0.62, 0.42)[i % 2]
        red, green, blue = colorsys.hls_to_rgb(i / max(count, 1), lightness, 0.7)
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colors)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """The classes of a data set and the meaning of the ids in its masks.

    Attributes:
        name: name of the data set, used in messages.
        classes: class names; a pixel's class is an index into them.
        palette: RGB colour of each class, 0 to 255.
        table: (raw id, class index or VOID) for every id that a mask may hold, 0 to 255. An id
            outside the table is an error, never a guess.
        colors: ((R, G, B), raw id) for masks stored as RGB, see `ids_of_colors`; empty refuses RGB
            masks.
        void_color: RGB colour of VOID in pictures.
        channel: channel of RGB masks that holds the raw ids: one of CHANNELS, or "equal" (see
            `ids_of_channel`); "" reads RGB masks by `colors`.

    Raises:
        InputError: if a value is out of range or two of them contradict each other.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    table: tuple[tuple[int, int], ...]
    colors: tuple[tuple[Color, int], ...] = ()
    void_color: Color = (0, 0, 0)
    channel: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise InputError(
                f"{self.name}: {len(self.classes)} classes; 1 to {MAX_CLASSES} are allowed."
            )
        if len(self.palette) != len(self.classes):
            raise InputError(
                f"{self.name}: {len(self.palette)} colours for {len(self.classes)} classes."
            )
        for raw, index in self.table:
            if not 0 <= raw <= 255:
                raise InputError(f"{self.name}: raw id {raw} is outside 0 to 255.")
            if index != VOID and not 0 <= index < len(self.classes):
                raise InputError(
                    f"{self.name}: raw id {raw} is mapped to class {index}; "
                    f"allowed are 0 to {len(self.classes) - 1} and VOID ({VOID})."
                )
        if len(dict(self.table)) != len(self.table):
            raise InputError(f"{self.name}: the table lists a raw id twice.")
        if len(dict(self.colors)) != len(self.colors):
            raise InputError(f"{self.name}: a mask colour stands for two raw ids.")
        if self.channel not in ("", "equal", *CHANNELS):
            raise InputError(
                f'{self.name}: unknown channel {self.channel!r}; known: "", equal, '
                f"{', '.join(CHANNELS)}."
            )
        unknown = sorted({raw for _, raw in self.colors} - {raw for raw, _ in self.table})
        if unknown:
            raise InputError(f"{self.name}: mask colours name raw ids {unknown}, not in the table.")

    @property
    def num_classes(self) -> int:
        """K, the number of classes; VOID is not one."""
        return len(self.classes)

    @functools.cached_property
    def lookup(self) -> np.ndarray:
        """uint8 [256]: raw id -> class, VOID, or the mark of an undeclared id."""
        lookup = np.full(256, _UNDECLARED, np.uint8)
        for raw, index in self.table:
            lookup[raw] = index
        lookup.flags.writeable = False
        return lookup

    def encode(self, raw: np.ndarray, where: str) -> np.ndarray:
        """Converts raw ids to classes: uint8 [H, W] -> uint8 [H, W].

        Raises:
            InputError: naming `where`, the undeclared ids and the number of their pixels.
        """
        label: np.ndarray = self.lookup[raw]
        if (label == _UNDECLARED).any():
            ids = _most_common(raw[label == _UNDECLARED], str)
            allowed = _ranges([raw for raw, _ in self.table])
            raise InputError(f"{where}: undeclared label id {ids}; {self.name} declares {allowed}.")
        return label

    def ids_of_colors(self, rgb: np.ndarray, where: str) -> np.ndarray:
        """Converts an RGB mask to raw ids by `colors`: uint8 [H, W, 3] -> uint8 [H, W].

        Raises:
            InputError: naming `where`, if the spec has no mask colours or lacks one that occurs.
        """
        if not self.colors:
            raise InputError(
                f"{where}: an RGB mask, but {self.name} declares no mask colours; store index PNGs "
                "or give every class its R G B."
            )
        codes = np.array([(r << 16) | (g << 8) | b for (r, g, b), _ in self.colors], np.uint32)
        order = np.argsort(codes)
        codes, ids = codes[order], np.array([raw for _, raw in self.colors], np.uint8)[order]
        wide = rgb.astype(np.uint32)
        code = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        unknown = codes[place] != code
        if unknown.any():
            colors = _most_common(code[unknown], _color_text)
            raise InputError(f"{where}: colour {colors} is not a mask colour of {self.name}.")
        raw: np.ndarray = ids[place]
        return raw

    def decode(self, label: np.ndarray) -> np.ndarray:
        """Converts classes to raw ids, the inverse of `encode`: uint8 [H, W] -> uint8 [H, W].

        A class with several ids gets the first of them in the table.
        """
        lookup = np.full(256, VOID, np.uint8)
        for raw, index in reversed(self.table):
            lookup[index] = raw
        ids: np.ndarray = lookup[label]
        return ids

    def to_json(self) -> dict:
        """The fields as lists and strings; `from_json` restores the spec."""
        fields = dataclasses.asdict(self)
        if not self.channel:
            del fields["channel"]  # fingerprints of old run folders were computed without it
        return fields

    @classmethod
    def from_json(cls, fields: dict) -> "DatasetSpec":
        """The spec whose `to_json` is `fields`, also after a round trip through a JSON file."""

        def freeze(value: Any) -> Any:
            return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value

        return cls(**{key: freeze(value) for key, value in fields.items()})


def ids_of_channel(rgb: np.ndarray, channel: str, where: str) -> np.ndarray:
    """The ids stored in one channel of an RGB mask: uint8 [H, W, 3] -> uint8 [H, W].

    Args:
        rgb: the mask.
        channel: one of CHANNELS, or "equal" if all three hold the ids.
        where: file name for errors.

    Raises:
        InputError: if `channel` is "equal" and the channels differ.
    """
    if channel != "equal":
        return rgb[..., CHANNELS.index(channel)]
    if (rgb != rgb[..., :1]).any():
        raise InputError(
            f"{where}: the channels of this RGB mask differ; if one of them holds the ids, set "
            f"data.channel={', '.join(CHANNELS)}. Code that reads OpenCV's first channel, like the "
            "lecture's, reads blue."
        )
    return rgb[..., 0]


def _most_common(values: np.ndarray, text: Callable[[int], str]) -> str:
    """Text such as "7 (12 pixels), 9 (1 pixels) and 3 more", the most frequent values first."""
    ids, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = ", ".join(f"{text(int(ids[i]))} ({counts[i]} pixels)" for i in order[:_SHOWN])
    return shown + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def _ranges(ids: Sequence[int]) -> str:
    """Text such as "0-10, 255": sorted ids, runs of three and more as a range."""
    runs: list[list[int]] = []
    for i in sorted(ids):
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(
        f"{a}-{b}" if b > a + 1 else ", ".join(map(str, range(a, b + 1))) for a, b in runs
    )


def _color_text(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"

"""Drawing tools of `scenes`: stable random numbers, a camera, a canvas of packed pixels, textures.

Pixels result from integer arithmetic alone, so that a scene is the same on every machine.
"""

import functools
import typing
from collections.abc import Sequence

import cv2
import numpy as np

from segjax.data.spec import VOID

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, ODD = range(12)
PLAIN, GRAIN, LEAVES, BRICK, CLOUD, PLASTER, CLOTH, BARK, TILES = range(9)

_T = typing.TypeVar("_T")
_TILE = 128  # side of a texture, a power of two
_HALF = ((64, 0), (55, 32), (32, 55), (0, 64), (-32, 55), (-55, 32))
CIRCLE = _HALF + tuple((-x, -y) for x, y in _HALF)
"""Twelve points of a circle of radius 64."""

Rgb = tuple[int, int, int]
Paint = tuple[int, int, int, int]
Seen = tuple[np.ndarray, np.ndarray, np.ndarray] | None
"""The visible part of a plane: packed pixels, cm along the plane, cm above the ground."""


class Dice:
    """Random integers of one scene: Philox's raw stream, which numpy guarantees to be stable."""

    def __init__(self, seed: int, index: int):
        words = [int(seed) % 2**64, int(index) % 2**64]
        self._bits = np.random.Philox(key=np.array(words, np.uint64))
        self._pool: list[int] = []

    def __call__(self, low: int, high: int) -> int:
        """A random integer from low to high, both included."""
        if not self._pool:
            self._pool = self._bits.random_raw(512).tolist()
        return low + self._pool.pop() % (high - low + 1)

    def chance(self, percent: int) -> bool:
        """True with a probability of `percent` percent."""
        return self(0, 99) < percent

    def pick(self, options: Sequence[_T]) -> _T:
        """A random element of a sequence."""
        return options[self(0, len(options) - 1)]

    def near(self, rgb: Rgb, spread: int) -> Rgb:
        """A colour near `rgb`, 0 to 255, with a random brightness and slightly random hue."""
        shift, hue = self(-spread, spread), spread // 3
        r, g, b = rgb
        r, g, b = r + shift + self(-hue, hue), g + shift + self(-hue, hue), b + shift
        return min(max(r, 0), 255), min(max(g, 0), 255), min(max(b, 0), 255)

    def bytes(self, count: int) -> np.ndarray:
        """Random bytes, uint8 [count]."""
        words = self._bits.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count]


@functools.cache
def _bank() -> np.ndarray:
    """int16 [16 * 128 * 128]: the brightness that textures add; each texture is a periodic tile."""
    raw = Dice(0x7EC5, 0).bytes(4 * _TILE * _TILE).reshape(4, _TILE, _TILE).astype(np.int32) - 128
    fine, other, third, fourth = raw

    def smooth(noise: np.ndarray, down: int, right: int) -> np.ndarray:
        total = functools.reduce(np.add, (np.roll(noise, i, 0) for i in range(down)))
        return functools.reduce(np.add, (np.roll(total, i, 1) for i in range(right)))

    y, x = np.mgrid[:_TILE, :_TILE]
    blob = smooth(other, 3, 3) // 5
    joint = (y % 4 == 0) | ((x + 4 * (y // 4 % 2)) % 8 == 0)
    bank = np.zeros((16, _TILE, _TILE), np.int32)
    bank[PLAIN] = fine // 42
    bank[GRAIN] = fine // 11
    bank[LEAVES] = np.where(blob > 8, 34, np.where(blob < -14, -42, 0)) + fine // 8
    bank[BRICK] = np.where(joint, -26, smooth(third, 1, 3) // 24)
    bank[CLOUD] = smooth(smooth(fourth, 9, 16), 7, 12) // 700
    bank[PLASTER] = smooth(third, 6, 6) // 140 + fine // 30
    bank[CLOTH] = smooth(fourth, 7, 2) // 44
    bank[BARK] = smooth(other, 9, 1) // 20
    bank[TILES] = np.where(y % 3 == 0, -20, fine // 20)
    return np.clip(bank, -64, 64).astype(np.int16).ravel()


def steps(low: int, high: int) -> np.ndarray:
    """int32 low to high - 1; 32 bits suffice and are faster than the platform's default."""
    return np.arange(low, high, dtype=np.int32)


def paint(rgb: Rgb, label: int, texture: int = PLAIN) -> Paint:
    """The four bytes of a pixel: its colour, then class and texture in one byte."""
    return (*rgb, label | texture << 4)


def pack(paints: list[Paint]) -> np.ndarray:
    """Pixels as the canvas stores them: uint32 [len(paints)]."""
    return np.array(paints, np.uint8).view("<u4")[:, 0]


def mix(a: Rgb, b: Rgb, share: int) -> Rgb:
    """A mixture of two colours: `share` / 256 of b, the rest of a."""
    rest = 256 - share
    return (
        (a[0] * rest + b[0] * share) >> 8,
        (a[1] * rest + b[1] * share) >> 8,
        (a[2] * rest + b[2] * share) >> 8,
    )


class View:
    """A canvas and the level pinhole camera that projects the scene to it; lengths are in cm.

    Points are (x to the right of the camera, y above the ground, z ahead).

    Attributes:
        pixels: uint32 [H, W], in the format of `pack`.
        height, width: H, W.
        unit: half pixels per pixel of a picture of the default size, 96 x 128.
        focal: focal length in pixels.
        eye: height of the camera in cm.
        column, row: vanishing point in pixels.
        fog: rate at which colours approach `haze` with distance.
        haze: colour of the horizon.
    """

    def __init__(self, dice: Dice, size: tuple[int, int]):
        self.height, self.width = size
        self.pixels = np.zeros(size, "<u4")
        self._bytes = self.pixels.view(np.uint8).reshape(*size, 4)
        scale = min(self.width, self.height * 4 // 3)  # 128 at the default size
        self.unit = max(scale * 2 // 128, 1)
        self.focal = scale * dice(200, 270) >> 8
        self.eye = dice(130, 220)
        self.column = self.width * dice(30, 70) // 100
        self.row = self.height * dice(30, 52) // 100
        self.fog = dice(8, 70)
        self.haze: Rgb = (0, 0, 0)

    def at(self, x: int, y: int, z: int) -> tuple[int, int]:
        """Column and row of the projection of a point; z is at least 1."""
        return self.column + x * self.focal // z, self.row + (self.eye - y) * self.focal // z

    def nearest(self, x: int) -> int:
        """The smallest z at which a point `x` to the side is inside the picture."""
        margin = self.column if x < 0 else self.width - self.column
        return abs(x) * self.focal // max(margin, 1)

    def far(self, rgb: Rgb, z: int) -> Rgb:
        """A colour seen through z cm of haze."""
        return mix(rgb, self.haze, min(z * self.fog // 4000, 128))

    def fill(self, points: list[tuple[int, int]], brush: Paint) -> None:
        """Fills a convex polygon of (column, row)."""
        cv2.fillConvexPoly(self._bytes, np.array(points, np.int32), brush)

    def slope(
        self,
        ends: tuple[int, int, int],
        low: tuple[int, int],
        high: tuple[int, int],
        brush: Paint,
    ) -> None:
        """Fills a plane across the street between two (y, z); ends: left x, right x and taper."""
        (left, right, taper), (y, z), (top, back) = ends, low, high
        self.fill(
            [
                self.at(left, y, z),
                self.at(right, y, z),
                self.at(right - taper, top, back),
                self.at(left + taper, top, back),
            ],
            brush,
        )

    def flat(self, x: int, z: int, points: list[tuple[int, int]], brush: Paint) -> None:
        """Fills a convex polygon that faces the camera at (x, z): (cm right of x, cm above)."""
        focal, column = self.focal, self.column
        row, eye = self.row, self.eye
        self.fill(
            [(column + (x + u) * focal // z, row + (eye - v) * focal // z) for u, v in points],
            brush,
        )

    def box(
        self, x: int, z: int, low: tuple[int, int], high: tuple[int, int], brush: Paint
    ) -> None:
        """Fills a rectangle facing the camera, given two corners (right of x, above) in cm."""
        self.flat(x, z, [low, (high[0], low[1]), high, (low[0], high[1])], brush)

    def disc(
        self, x: int, z: int, centre: tuple[int, int], radii: tuple[int, int], brush: Paint
    ) -> None:
        """Fills an ellipse facing the camera, given centre (right of x, above) and radii in cm."""
        (u, v), (a, b) = centre, radii
        self.flat(x, z, [(u + (a * i >> 6), v + (b * j >> 6)) for i, j in CIRCLE], brush)

    def wall(self, x: int, near: int, far: int, height: int) -> Seen:
        """The part of the picture that shows the plane at x from z = near to far.

        Returns:
            (pixels, z, y): a view uint32 [h, w] of the canvas, the plane's z by column [1, w] and
            its height by pixel [h, w]; pixels with a height below 0 or at or above `height` lie
            outside the plane. None if the plane is out of sight.
        """
        ends = sorted(self.column + x * self.focal // z for z in (near, far))
        first, last = max(ends[0], 0), min(ends[1] + 1, self.width)
        tops = [self.row + (self.eye - height) * self.focal // z for z in (near, far)]
        top, low = max(min(tops), 0), min(self.at(0, 0, near)[1] + 1, self.height)
        if first >= last or top >= low:
            return None
        odd = np.abs(2 * steps(first - self.column, last - self.column) + 1)
        z = np.clip(2 * abs(x) * self.focal // odd, near, far)[None]
        rows = steps(top - self.row, low - self.row)[:, None]
        return self.pixels[top:low, first:last], z, self.eye - rows * z // self.focal

    def front(self, left: int, right: int, z: int, height: int) -> Seen:
        """Like `wall`, for a plane at z facing the camera: (pixels, x - left [1, w], y [h, 1])."""
        (first, top), (last, low) = self.at(left, height, z), self.at(right, 0, z)
        first, last = max(first, 0), min(last, self.width)
        top, low = max(top, 0), min(low + 1, self.height)
        if first >= last or top >= low:
            return None
        x = steps(first - self.column, last - self.column)[None] * z // self.focal
        y = self.eye - steps(top - self.row, low - self.row)[:, None] * z // self.focal
        return self.pixels[top:low, first:last], x - left, y

    def finish(self, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
        """Adds texture, light and sensor noise: image uint8 [H, W, 3] and label uint8 [H, W]."""
        code = self._bytes[..., 3]
        y = (np.arange(self.height) * 2 // self.unit + dice(0, 127)) % _TILE
        x = (np.arange(self.width) * 2 // self.unit + dice(0, 127)) % _TILE
        tile = (code >> 4).astype(np.int32) * _TILE**2 + (y[:, None] * _TILE + x)
        level, cast = dice(170, 285), dice(6, 26)
        light = [level + dice(-cast, cast) for _ in range(3)]
        image = self._bytes[..., :3].astype(np.int32)
        image += _bank().take(tile)[..., None]
        image *= np.array(light, np.int32)
        image >>= 8
        noise = dice.bytes(image.size).reshape(image.shape)
        image += (((noise & 15) + (noise >> 4)).astype(np.int32) - 15) * dice(4, 14) >> 5
        return np.clip(image, 0, 255).astype(np.uint8), self._labels(dice, code & 15)

    def _labels(self, dice: Dice, label: np.ndarray) -> np.ndarray:
        """Labels with VOID for odd things and along parts of the borders between classes."""
        border = np.zeros(label.shape, bool)
        border[:, 1:] = label[:, 1:] != label[:, :-1]
        border[1:] |= label[1:] != label[:-1]
        patches = dice.bytes(64).reshape(8, 8) < 128
        rows = np.arange(self.height) * 8 // self.height
        columns = np.arange(self.width) * 8 // self.width
        border &= patches[rows[:, None], columns]
        return np.where(border | (label == ODD), np.uint8(VOID), label)

"""The street of `scenes`: sky, backdrop, ground, houses, fences and the camera's own car."""

import dataclasses
import typing
from collections.abc import Callable

import cv2
import numpy as np

from segjax.data import scene_things as things
from segjax.data.scene_canvas import (
    BRICK,
    BUILDING,
    CLOUD,
    FENCE,
    GRAIN,
    LEAVES,
    ODD,
    PAVEMENT,
    PLASTER,
    ROAD,
    SKY,
    TILES,
    TREE,
    Dice,
    Seen,
    View,
    mix,
    pack,
    paint,
    steps,
)

_SKIES = (
    (225, 230, 235),
    (130, 170, 225),
    (190, 200, 215),
    (230, 185, 150),
    (130, 135, 145),
    (165, 160, 175),
)
_WALLS = (
    (150, 90, 70),
    (190, 170, 140),
    (120, 120, 125),
    (205, 200, 195),
    (90, 80, 75),
    (140, 130, 150),
    (170, 140, 90),
    (100, 110, 130),
    (110, 120, 100),
)
_STONES = ((95, 95, 100), (120, 118, 115), (140, 135, 130), (150, 130, 115), (110, 105, 110))
_RAILS = (
    (210, 210, 205),
    (50, 50, 50),
    (125, 90, 60),
    (80, 100, 80),
    (130, 130, 130),
    (90, 70, 60),
)


class Placed(typing.NamedTuple):
    """A thing at (x, z), with half the width and the height that cast its shadow; all in cm."""

    z: int
    x: int
    thing: Callable[[View, Dice, int, int], None]
    half: int
    height: int


@dataclasses.dataclass(frozen=True)
class Street:
    """The layout of a street in cm from the camera, x to the right, z ahead.

    Attributes:
        edges: x of the left and right kerb.
        backs: x of the far edges of the pavements.
        end: z of the backdrop that closes the street.
        crossing: z range of a crossing street; (0, 0) for none.
        sun: x shift of a shadow per 256 cm of height; 0 under an overcast sky.
    """

    edges: tuple[int, int]
    backs: tuple[int, int]
    end: int
    crossing: tuple[int, int]
    sun: int

    @classmethod
    def draw(cls, dice: Dice, view: View) -> "Street":
        """A random street."""
        edges = (-dice(160, 430), dice(160, 430))
        backs = (edges[0] - dice(260, 520), edges[1] + dice(260, 520))
        near = dice(900, 2200)
        crossing = (near, near + dice(400, 700)) if dice.chance(30) else (0, 0)
        sun = dice.pick((0, -1, 1)) * dice(120, 380)
        return cls(edges, backs, dice(3000, 6500), crossing, sun)


def sky(view: View, dice: Dice) -> None:
    """Paints a gradient with clouds and sets the haze to the colour at the horizon."""
    high = dice.near(dice.pick(_SKIES), 25)
    view.haze = mix(dice.near(dice.pick(_SKIES), 25), high, dice(60, 230))
    top, low = (np.array(paint(rgb, SKY, CLOUD), np.int32) for rgb in (high, view.haze))
    rows = np.arange(view.height)[:, None]
    shade = (top * (view.height - rows) + low * rows) // view.height
    view.pixels[:] = np.ascontiguousarray(shade, np.uint8).view("<u4")
    for _ in range(dice(0, 5)):
        x, y = dice(-4000, 4000), dice(1200, 3600)
        view.disc(
            x,
            6000,
            (0, y),
            (dice(500, 1500), dice(100, 300)),
            paint(mix(view.haze, (255, 255, 255), dice(20, 150)), SKY, CLOUD),
        )


def backdrop(view: View, dice: Dice, street: Street) -> None:
    """Paints the houses and trees that close the view, so that no ground reaches the horizon."""
    z = street.end
    x, last = -view.column * z // view.focal, (view.width - view.column) * z // view.focal
    trees = dice(10, 70)
    while x < last:
        wide = dice(700, 1600)
        if dice.chance(trees):
            leaf = dice.near(dice.pick(things.FOLIAGE), 20)
            high = dice(250, 500)
            view.box(x, z, (0, 0), (wide, high), paint(view.far(leaf, z), TREE, LEAVES))
            for i in range(3):
                shade = mix(leaf, (0, 0, 0), 25 * i)
                view.disc(
                    x,
                    z,
                    (wide * (2 * i + 1) // 6, high),
                    (wide // 4, dice(150, 450)),
                    paint(view.far(shade, z), TREE, LEAVES),
                )
        else:
            Facade.draw(dice, view, z).put(
                view.front(x, x + wide, z, high := dice(500, 1300)), high
            )
        x += wide


def ground(view: View, dice: Dice, street: Street, placed: list[Placed]) -> None:
    """Paints road, marks, kerbs and pavements; projects pixels below the horizon to the ground."""
    (left, right), (near, far) = street.edges, street.crossing
    top = view.row + 1
    z = np.minimum(view.focal * view.eye // steps(1, view.height - view.row)[:, None], 30000)
    x = (2 * steps(-view.column, view.width - view.column)[None] + 1) * z // (2 * view.focal)
    slab, seam, phase, period = dice(60, 130), dice(8, 13), dice(0, 999), dice(400, 700)
    flags = ((x + phase) % slab < seam) | ((z + phase) % (slab * dice(8, 16) // 8) < seam)
    kind = 3 + flags.view(np.uint8)
    kerb = (x >= left - 22) & (x < right + 22)
    kind = np.where(kerb, np.where((z + phase) % 110 < 12, 6, 5).astype(np.uint8), kind)
    road = (x >= left) & (x < right)
    if far:
        road |= (z >= near) & (z < far)
    middle = (left + right) // 2 + dice(-60, 60)
    marks = (abs(x - middle) < 9) & ((z + phase) % period < period * dice(40, 80) // 100)
    if dice.chance(50):
        inset = dice(25, 45)
        marks |= (abs(x - left - inset) < 7) | (abs(right - inset - x) < 7)
    if dice.chance(35):
        start = (near or dice(600, 1500)) - 320
        marks |= (z >= start) & (z < start + 260) & ((x + phase) % 110 < 55)
    patch = (x >= middle) & (x < middle + dice(60, 200)) & ((z + phase) % 1700 < dice(0, 500))
    kind = np.where(road, np.where(marks, 2, patch.view(np.uint8)).astype(np.uint8), kind)
    tar = dice.near(dice.pick(_STONES), 30)
    stone = dice.near(dice.pick(_STONES), 40)
    line = dice.pick(((225, 225, 220), (225, 225, 220), (215, 180, 90)))
    edge = dice.near(mix(stone, (225, 225, 220), 120), 15)
    dark, texture = (0, 0, 0), dice.pick((GRAIN, PLASTER, BRICK))
    colors = [tar, mix(tar, dark, 50), line, stone, mix(stone, dark, 80), edge, mix(edge, dark, 90)]
    codes = [(ROAD, GRAIN)] * 3 + [(PAVEMENT, texture)] * 4
    lit = [paint(rgb, *code) for rgb, code in zip(colors, codes, strict=True)]
    dim = [paint(mix(rgb, dark, 105), *code) for rgb, code in zip(colors, codes, strict=True)]
    kind += 7 * _shadows(view, street, placed)[top:]
    view.pixels[top:] = pack(lit + dim).take(kind)


def _shadows(view: View, street: Street, placed: list[Placed]) -> np.ndarray:
    """uint8 [H, W]: 1 for ground under a thing or in its shadow."""
    mask = np.zeros((view.height, view.width), np.uint8)

    def fill(corners: list[tuple[int, int]]) -> None:
        points = np.array([view.at(x, 0, max(z, 60)) for x, z in corners], np.int32)
        cv2.fillConvexPoly(mask, points, 1)

    for z, x, thing, half, height in placed:
        back = z + (430 if thing is things.car else half)
        fill([(x - half, z - 15), (x + half, z - 15), (x + half, back), (x - half, back)])
        if street.sun:
            shift = height * street.sun >> 8
            fill(
                [
                    (x - half, z),
                    (x + half, z),
                    (x + half + shift, z + height // 3),
                    (x - half + shift, z + height // 3),
                ]
            )
    if street.sun:  # the shadow of the houses along one side
        side = 0 if street.sun > 0 else 1
        start, stop = street.backs[side] * 3, street.backs[side] + 2 * street.sun
        fill([(start, 100), (stop, 100), (stop, street.end), (start, street.end)])
    return mask


@dataclasses.dataclass(frozen=True)
class Facade:
    """The look of a house: a palette and a grid of windows, in cm."""

    colors: np.ndarray  # packed: wall, window, lit window, frame, shop, door, roof
    bay: int
    window: tuple[int, int]
    storey: int
    sill: tuple[int, int]
    ground: int
    cornice: int
    phase: int

    @classmethod
    def draw(cls, dice: Dice, view: View, z: int) -> "Facade":
        """A random facade, its colours seen from z cm away."""
        wall = dice.near(dice.pick(_WALLS), 30)
        dark = dice.near((50, 58, 68), 22)
        glass = [mix(wall, dark, 200), mix(dark, view.haze, dice(40, 150))]
        frame = mix(wall, dice.pick(((235, 235, 230), (60, 55, 50))), dice(120, 220))
        trim = [dice.near(dice.pick(_WALLS), 40) for _ in range(3)]
        texture = dice.pick((BRICK, BRICK, PLASTER))
        colors = zip((wall, *glass, frame, *trim), (texture, 0, 0, 0, 0, 0, TILES), strict=True)
        bay, storey = dice(220, 360), dice(270, 340)
        start = bay * dice(18, 28) // 100
        return cls(
            colors=pack([paint(view.far(rgb, z), BUILDING, t) for rgb, t in colors]),
            bay=bay,
            window=(start, bay - start),
            storey=storey,
            sill=(storey * dice(25, 35) // 100, storey * dice(75, 88) // 100),
            ground=storey if dice.chance(45) else 0,
            cornice=dice(30, 120),
            phase=dice(0, bay),
        )

    def put(self, seen: Seen, height: int) -> None:
        """Paints the facade on `seen`, the result of `View.wall` or `View.front`."""
        if seen is None:
            return
        pixels, u, y = seen
        across, up = (u + self.phase) % self.bay, y % self.storey
        (a, b), (c, d) = self.window, self.sill
        frame = (across >= a - 22) & (across < b + 22) & (up >= c - 22) & (up < d + 22)
        glass = (across >= a) & (across < b) & (up >= c) & (up < d)
        lit = (u + self.phase) // self.bay * 5 % 3 == y // self.storey * 7 % 4
        kind = np.where(glass, 1 + lit.view(np.uint8), 3 * frame.view(np.uint8))
        if self.ground:  # shops: wide panes, doors between them, a board above
            pane = (across >= a // 2) & (y >= 45) & (y < self.ground - 70)
            shop = np.where(pane, 1, np.where(y >= self.ground - 60, 4, 5))
            kind = np.where(y < self.ground, shop, kind)
        kind = np.where(y >= height - self.cornice, 6, kind)
        np.copyto(pixels, self.colors.take(kind), where=(y >= 0) & (y < height))


def side(view: View, dice: Dice, street: Street, way: int) -> None:
    """Paints the houses along one side of the street from far to near, and fences before them."""
    back = street.backs[way > 0]
    z, houses = 200, []
    open_side = dice.chance(22)
    while z < street.end and not open_side:
        length, gap = dice(700, 2000), dice(300, 900) if dice.chance(25) else 0
        houses.append((z, min(z + length, street.end), dice(0, 160)))
        z += length + gap
    for near, far, setback in reversed(houses):
        facade, height = Facade.draw(dice, view, near), dice(450, 1300)
        x, (start, stop) = back + way * setback, street.crossing
        if near < stop and far > start:
            continue
        outer = x + way * dice(700, 1400)
        facade.put(view.front(min(x, outer), max(x, outer), near, height), height)
        facade.put(view.wall(x, near, far, height), height)
    if open_side and dice.chance(80):
        height, z = dice(130, 220), dice(700, 1400)
        left, right = sorted((back, way * 4 * z))
        _rails(dice, view, view.front(left, right, z, height), z, height)
    if dice.chance(80 if open_side else 40):
        fence(view, dice, back - way * dice(0, 60), dice(130, 220))


def fence(view: View, dice: Dice, x: int, height: int) -> None:
    """Paints a fence along the street at x."""
    near = max(view.nearest(x), 300) - dice(0, 200)
    _rails(dice, view, view.wall(x, near, near + dice(800, 2600), height), near, height)


def _rails(dice: Dice, view: View, seen: Seen, z: int, height: int) -> None:
    """Paints pickets or bars and two rails on `seen`, the result of `View.wall` or `View.front`."""
    rgb, dark = view.far(dice.near(dice.pick(_RAILS), 25), z), (0, 0, 0)
    brushes = pack([paint(mix(rgb, dark, share), FENCE) for share in (0, 80, 170)])
    period, clear = dice(34, 60), dice.chance(50)
    if seen is None:
        return
    pixels, along, y = seen
    rails = (y >= height - 22) | ((y >= 20) & (y < 40))
    kind = np.where(along % period < period // 2, 0, np.where(rails, 1, 2))
    color = brushes.take(kind)
    if clear:  # pixels behind the fence keep their colour and get its class
        np.copyto(color, (pixels & 0xFFFFFF) | (brushes[2] & 0xFF000000), where=kind == 2)
    np.copyto(pixels, color, where=(y >= 0) & (y < height))


def bonnet(view: View, dice: Dice) -> None:
    """Paints the bonnet of the car that carries the camera, without class, at the bottom."""
    rgb = dice.near(dice.pick(things.LACQUER), 20)
    low, wide = view.height, view.width
    high, edge = low - low * dice(5, 10) // 100, low - low * dice(0, 4) // 100
    for part, share in ((0, 0), (8, 60)):
        view.fill(
            [
                (0, low),
                (0, edge + low * part // 200),
                (wide // 4, high + low * part // 200),
                (wide * 3 // 4, high + low * part // 200),
                (wide, edge + low * part // 200),
                (wide, low),
            ],
            paint(mix(rgb, (255, 255, 255), share), ODD),
        )

"""The embedded data set: endless street scenes with exact labels, drawn from (seed, index).

Classes differ by shape, texture and place in the street; their colours and places in the picture
vary, as in CamVid (Brostow et al., 2009), whose eleven classes the scenes have.
"""

from collections.abc import Callable

import numpy as np

from segjax.data import scene_street
from segjax.data import scene_things as things
from segjax.data.scene_canvas import Dice, View
from segjax.data.spec import VOID, DatasetSpec
from segjax.errors import InputError

MIN_SIZE = (48, 64)

SPEC = DatasetSpec(
    name="scenes",
    classes=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    table=(*((i, i) for i in range(11)), (11, VOID)),
)

_FORMS = {  # half the width and the height that cast a shadow, in cm
    things.tree: (150, 450),
    things.bush: (120, 150),
    things.pole: (18, 600),
    things.sign: (30, 280),
    things.pedestrian: (25, 170),
    things.bicyclist: (40, 170),
    things.car: (100, 120),
    things.crossing_car: (210, 120),
    things.odd: (32, 100),
}


def draw(seed: int, index: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """Scene `index` of the endless set `seed`, the same on every machine and in any order.

    Args:
        seed, index: any integers.
        size: (H, W), at least 48 x 64; things scale with it.

    Returns:
        image uint8 [H, W, 3], RGB; label uint8 [H, W], 0 to 10 or VOID.

    Raises:
        InputError: if the size is too small.
    """
    if size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise InputError(
            f"scenes: size is {size[0]} x {size[1]}; at least {MIN_SIZE[0]} x {MIN_SIZE[1]} "
            "(height x width) is allowed."
        )
    dice = Dice(seed, index)
    view = View(dice, (int(size[0]), int(size[1])))
    street = scene_street.Street.draw(dice, view)
    placed = _place(view, dice, street)
    scene_street.sky(view, dice)
    scene_street.backdrop(view, dice, street)
    scene_street.ground(view, dice, street, placed)
    for way in (-1, 1):
        scene_street.side(view, dice, street, way)
    # Things beside the road first, then fences at the kerbs, then things on the road before them.
    for on_road in (False, True):
        for z, x, thing, *_ in sorted(placed, key=lambda item: -item.z):
            if (street.edges[0] < x < street.edges[1]) == on_road:
                thing(view, dice, x, z)
        for way in (-1, 1):
            if not on_road and dice.chance(20):
                scene_street.fence(view, dice, street.edges[way > 0] + way * 25, dice(90, 125))
    if dice.chance(20):
        scene_street.bonnet(view, dice)
    return view.finish(dice)


class Scenes:
    """A source of the scenes 0 to count - 1 of one seed.

    Raises:
        InputError: if the size is too small or `count` is below 1.
    """

    def __init__(self, *, seed: int, count: int, size: tuple[int, int]):
        if count < 1:
            raise InputError(f"scenes: count is {count}; at least 1 is allowed.")
        draw(seed, 0, size)  # a wrong size fails here and not in a worker
        self._seed, self._count, self._size = seed, count, (int(size[0]), int(size[1]))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of all scenes."""
        return self._size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 [H, W, 3] and label uint8 [H, W]; IndexError outside 0 to count - 1."""
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}.")
        return draw(self._seed, index, self._size)

    def name(self, index: int) -> str:
        """The name of a scene, such as scene-000012."""
        return f"scene-{index:06d}"


def _place(view: View, dice: Dice, street: scene_street.Street) -> list[scene_street.Placed]:
    """The things in the street with their places, in no particular order."""
    placed: list[scene_street.Placed] = []

    def pavement(inset: int, reach: int, half: int = 0) -> tuple[int, int]:
        # The nearer of two tries: on the far side of a turned camera things would be tiny.
        tries = []
        for _ in range(2):
            side = dice(0, 1)
            edge, back = street.edges[side], street.backs[side]
            x = edge + (back - edge) * dice(inset, 100 - inset) // 100
            tries.append((max(view.nearest(x + half if side else x - half), 360), x))
        z, x = min(tries)
        return z + z * dice(0, reach) * dice(0, 100) // 10000, x

    def road(low: int, high: int, inset: int) -> tuple[int, int]:
        x = dice(street.edges[0] + inset, street.edges[1] - inset)
        return max(view.nearest(x), low) + dice(0, high - low) * dice(0, 100) // 100, x

    def add(thing: Callable, spot: tuple[int, int]) -> None:
        cars = [item for item in placed if item.thing is thing is things.car]
        if all(abs(spot[0] - z) > 500 or abs(spot[1] - x) > 190 for z, x, *_ in cars):
            placed.append(scene_street.Placed(*spot, thing, *_FORMS[thing]))

    for _ in range(dice(0, 3)):
        add(things.tree, pavement(60, 250))
    for _ in range(dice(0, 2)):
        add(things.bush, pavement(85, 200))
    for _ in range(dice(1, 3)):
        add(things.pole, pavement(10, 80))
    for _ in range(dice(1, 2)):
        add(things.sign, pavement(10, 50, 60))
    for _ in range(dice(1, 3)):
        aside = dice.chance(65)
        add(things.pedestrian, pavement(8, 40, 30) if aside else road(420, 1000, 20))
    for _ in range(dice(0, 2) or dice(0, 1)):
        aside = dice.chance(25)
        add(things.bicyclist, pavement(8, 40, 60) if aside else road(420, 900, 40))
    for _ in range(dice(0, 2)):
        add(things.car, road(480, 2200, 95))
    for side, way in ((0, -1), (1, 1)):
        if dice.chance(45):
            x = street.edges[side] - way * 105
            z = max(view.nearest(x), 380) + dice(0, 500)
            for _ in range(dice(1, 3)):
                add(things.car, (z, x))
                z += dice(560, 800)
    if dice.chance(22):
        z = sum(street.crossing) // 2 or dice(700, 1600)
        add(things.crossing_car, (z, dice(-z // 3, z // 3)))
    if dice.chance(30):
        add(things.odd, pavement(10, 80))
    return placed

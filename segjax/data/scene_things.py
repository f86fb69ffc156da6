"""The things in the street of `scenes`, each painted at (x, z) as the camera sees it."""

from segjax.data.scene_canvas import (
    BARK,
    BICYCLIST,
    CAR,
    CIRCLE,
    CLOTH,
    LEAVES,
    ODD,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    Dice,
    Paint,
    Rgb,
    View,
    mix,
    paint,
)

LACQUER = (
    (200, 200, 200),
    (40, 40, 45),
    (120, 125, 130),
    (150, 40, 40),
    (50, 70, 130),
    (90, 110, 90),
    (220, 220, 215),
    (170, 150, 100),
    (60, 110, 120),
)
_CLOTHES = (
    (40, 40, 50),
    (90, 90, 95),
    (160, 50, 50),
    (50, 80, 150),
    (200, 195, 185),
    (70, 100, 70),
    (190, 160, 70),
    (110, 80, 60),
    (130, 70, 120),
)
_SKIN = ((225, 180, 150), (190, 140, 110), (120, 80, 60))
FOLIAGE = ((70, 95, 45), (95, 125, 65), (140, 125, 60), (145, 95, 55), (55, 75, 55), (115, 115, 85))
_METAL = (
    (60, 65, 65),
    (110, 115, 115),
    (165, 165, 160),
    (200, 200, 195),
    (80, 100, 85),
    (120, 100, 80),
)


def car(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a car or van along the street, rear or front towards the camera; x is its middle."""
    rgb = view.far(dice.near(dice.pick(LACQUER), 20), z)
    van, away = dice.chance(25), dice.chance(60)
    half, waist, roof, length = dice(82, 95), dice(88, 100), dice(142, 156), dice(380, 450)
    if van:
        roof, length = roof + 55, length + 60
    left, right, back = x - half, x + half, z + length
    dark, glass = mix(rgb, (0, 0, 0), 90), view.far(dice.near((45, 55, 65), 20), z)
    tyre, body, pane = paint((25, 25, 28), CAR), paint(rgb, CAR), paint(glass, CAR)
    front = z + (15 if van else 45 if away else 95)  # the slanting window meets the roof here
    rear = back - (40 if van else 110)
    view.slope((left, right, 0), (0, z + 40), (45, z + 40), tyre)
    if left > 0 or right < 0:
        side = left if left > 0 else right
        _flank(view, side, (z, front, rear, back), (waist, roof), (paint(dark, CAR), pane, tyre))
    lighter = paint(mix(rgb, (255, 255, 255), 40), CAR)
    view.slope((left + 12, right - 12, 0), (roof, front), (roof, rear), lighter)
    view.slope((left, right, 12), (waist, z), (roof, front), body)
    view.slope((left + 12, right - 12, 10), (waist + 3, z + 4), (roof - 8, front), pane)
    view.box(x, z, (-half, 22), (half, waist), body)
    view.box(x, z, (-half, 22), (half, 42), paint(dark, CAR))
    lamp = paint((215, 40, 30) if away else (250, 245, 215), CAR)
    for inner, outer in ((4 - half, 30 - half), (half - 30, half - 4)):
        view.box(x, z, (inner, waist - 32), (outer, waist - 10), lamp)
    view.box(x, z, (-26, 46), (26, 60), paint((235, 225, 150) if away else (235, 235, 235), CAR))


def _flank(
    view: View,
    x: int,
    along: tuple[int, int, int, int],
    levels: tuple[int, int],
    brushes: tuple[Paint, Paint, Paint],
) -> None:
    """Paints the side of a car; `along` is z of one end, of both roof ends and of the other end."""
    (z, front, rear, back), (waist, roof), (body, pane, tyre) = along, levels, brushes

    def fill(points: list[tuple[int, int]], brush: Paint) -> None:
        view.fill([view.at(x, height, depth) for depth, height in points], brush)

    fill([(z, 20), (z, waist), (back, waist), (back, 20)], body)
    fill([(z, waist), (front, roof), (rear, roof), (back, waist)], body)
    low, high, middle = waist + 4, roof - 9, (front + rear) // 2
    for a, b in ((front + 14, middle - 8), (middle + 8, rear - 10)):
        fill([(a, low), (a, high), (b, high), (b, low)], pane)
    for axle in (z + 75, back - 75):
        for radius, brush in ((34, tyre), (17, paint((150, 150, 150), CAR))):
            fill([(axle + (radius * i >> 6), 34 + (radius * j >> 6)) for i, j in CIRCLE], brush)


def crossing_car(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a car seen from the side; x is its middle."""
    rgb = view.far(dice.near(dice.pick(LACQUER), 20), z)
    body, glass = paint(rgb, CAR), paint(view.far(dice.near((45, 55, 65), 20), z), CAR)
    half, way, waist, roof = dice(190, 220), dice.pick((-1, 1)), dice(86, 98), dice(140, 155)
    view.box(x, z, (-half, 25), (half, waist - 6), body)
    view.box(x, z, (-half, 25), (half, 45), paint(mix(rgb, (0, 0, 0), 90), CAR))
    view.flat(
        x,
        z,
        [
            (way * u, v)
            for u, v in ((-half + 10, waist - 8), (-half + 60, roof), (60, roof), (130, waist - 8))
        ],
        body,
    )
    view.flat(
        x,
        z,
        [
            (way * u, v)
            for u, v in ((-half + 30, waist), (-half + 66, roof - 9), (-45, roof - 9), (-45, waist))
        ],
        glass,
    )
    view.flat(
        x,
        z,
        [(way * u, v) for u, v in ((-32, waist), (-32, roof - 9), (55, roof - 9), (108, waist))],
        glass,
    )
    for axle in (-half + 75, half - 75):
        view.disc(x, z, (axle, 34), (36, 36), paint((25, 25, 28), CAR))
        view.disc(x, z, (axle, 34), (17, 17), paint((150, 150, 150), CAR))


def _limb(
    view: View,
    x: int,
    z: int,
    a: tuple[int, int],
    b: tuple[int, int],
    thick: int,
    brush: Paint,
) -> None:
    """Paints a bar from a to b, `thick` cm wide or high; its ends are level or upright."""
    (u, v), (s, t), half = a, b, thick // 2
    if abs(t - v) >= abs(s - u):
        points = [(u - half, v), (u + half, v), (s + half, t), (s - half, t)]
    else:
        points = [(u, v - half), (u, v + half), (s, t + half), (s, t - half)]
    view.flat(x, z, points, brush)


def _head(
    view: View, dice: Dice, x: int, z: int, centre: tuple[int, int], label: int, hair: Rgb
) -> None:
    """Paints a head with hair; `centre` is (right of x, above) in cm."""
    u, v = centre
    view.disc(x, z, (u, v + 4), (13, 15), paint(view.far(hair, z), label))
    view.disc(x, z, (u, v - 3), (10, 11), paint(view.far(dice.pick(_SKIN), z), label))


def pedestrian(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a person on foot, standing or walking."""
    tall = dice(150, 190)
    hip, shoulder = tall * 48 // 100, tall * 82 // 100
    legs = paint(view.far(dice.near(dice.pick(_CLOTHES), 20), z), PEDESTRIAN, CLOTH)
    rgb = view.far(dice.near(dice.pick(_CLOTHES), 25), z)
    coat, sleeve = paint(rgb, PEDESTRIAN, CLOTH), paint(mix(rgb, (0, 0, 0), 70), PEDESTRIAN, CLOTH)
    stride, swing, skirt = dice(6, 24), dice(8, 22), dice(0, 8)
    for way in (-1, 1):
        _limb(view, x, z, (way * 9, hip + 5), (way * stride, 8), 20, legs)
        view.box(
            x, z, (way * stride - 10, 0), (way * stride + 10, 9), paint((35, 30, 30), PEDESTRIAN)
        )
        _limb(view, x, z, (way * 23, shoulder - 6), (way * (22 + swing // 2), hip), 16, sleeve)
    view.flat(
        x,
        z,
        [(-18 - skirt, hip - 10), (18 + skirt, hip - 10), (25, shoulder), (-25, shoulder)],
        coat,
    )
    _head(view, dice, x, z, (0, tall - 16), PEDESTRIAN, dice.near((70, 50, 40), 40))


def bicyclist(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a person on a bicycle, from the side or from behind; both are one class."""
    frame = paint(view.far(dice.near(dice.pick(LACQUER), 20), z), BICYCLIST)
    tyre, hub = paint((25, 25, 28), BICYCLIST), paint(view.far((125, 125, 125), z), BICYCLIST)
    legs = paint(view.far(dice.near(dice.pick(_CLOTHES), 20), z), BICYCLIST, CLOTH)
    coat = paint(view.far(dice.near(dice.pick(_CLOTHES), 25), z), BICYCLIST, CLOTH)
    hat = dice.pick(((70, 50, 40), (230, 230, 230), (200, 50, 40), (60, 90, 170)))
    if dice.chance(25):
        view.box(x, z, (-8, 0), (8, 70), tyre)
        for way in (-1, 1):
            _limb(view, x, z, (way * 12, 95), (way * 17, dice(18, 45)), 16, legs)
        view.box(x, z, (-32, 102), (32, 110), frame)
        view.flat(x, z, [(-17, 85), (17, 85), (26, 145), (-26, 145)], coat)
        view.box(x, z, (-13, 42), (13, 56), paint((210, 40, 30), BICYCLIST))
        _head(view, dice, x, z, (0, 164), BICYCLIST, hat)
        return
    way, pedal = dice.pick((-1, 1)), dice(15, 45)
    for axle in (-54, 54):
        view.disc(x, z, (axle, 35), (36, 36), tyre)
        view.disc(x, z, (axle, 35), (26, 26), hub)
        view.disc(x, z, (axle, 35), (6, 6), tyre)
    for a, b in (
        ((-54, 35), (-20, 82)),
        ((-20, 82), (0, 35)),
        ((0, 35), (46, 85)),
        ((-20, 80), (46, 85)),
        ((54, 35), (44, 104)),
    ):
        _limb(view, x, z, (way * a[0], a[1]), (way * b[0], b[1]), 8, frame)
    _limb(view, x, z, (way * -16, 96), (way * 16, 66), 18, legs)
    _limb(view, x, z, (way * 14, 70), (way * 4, pedal), 15, legs)
    view.flat(x, z, [(way * u, v) for u, v in ((-32, 92), (-4, 90), (28, 142), (4, 152))], coat)
    _limb(view, x, z, (way * 20, 136), (way * 46, 106), 12, coat)
    _head(view, dice, x, z, (way * 26, 164), BICYCLIST, hat)


def pole(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a lamp post or a plain column."""
    rgb = view.far(dice.near(dice.pick(_METAL), 20), z)
    half, top = dice(15, 20), dice(420, 800)
    light, dark = paint(mix(rgb, (255, 255, 255), 60), POLE), paint(mix(rgb, (0, 0, 0), 90), POLE)
    view.box(x, z, (-half, 0), (half, top), paint(rgb, POLE))
    view.box(x, z, (-half, 0), (-half // 3, top), light)
    view.box(x, z, (half // 2, 0), (half, top), dark)
    view.box(x, z, (-half - 6, 0), (half + 6, 60), dark)
    if dice.chance(60):
        arm = dice.pick((-1, 1)) * dice(110, 180)
        _limb(view, x, z, (0, top), (arm, top + 20), 22, paint(rgb, POLE))
        _limb(view, x, z, (arm * 2 // 3, top + 14), (arm * 5 // 4, top + 20), 34, light)


def sign(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a traffic sign or a traffic light on its post; the post is a pole."""
    metal = view.far(dice.near(dice.pick(_METAL), 20), z)
    size, foot, kind = dice(52, 64), dice(180, 240), dice(0, 4)
    middle = foot + size
    view.box(x, z, (-9, 0), (9, middle), paint(metal, POLE))
    view.box(x, z, (4, 0), (9, middle), paint(mix(metal, (0, 0, 0), 90), POLE))
    rim = paint(view.far(dice.near((200, 40, 40), 25), z), SIGN)
    pale = paint(view.far(dice.near((235, 235, 230), 15), z), SIGN)
    ink = paint(view.far((30, 30, 30), z), SIGN)
    if kind == 0:  # like "no entry"
        view.disc(x, z, (0, middle), (size, size), rim)
        view.disc(x, z, (0, middle), (size * 5 // 8, size * 5 // 8), pale)
        view.box(x, z, (-size // 3, middle - 8), (size // 3, middle + 8), ink)
    elif kind == 1:  # a warning, or "give way"
        way = dice.pick((-1, 1))
        for part, brush in ((size * 9 // 8, rim), (size * 5 // 8, pale)):
            foot = middle - way * part * 5 // 8
            view.flat(x, z, [(-part, foot), (0, middle + way * part), (part, foot)], brush)
    elif kind == 2:
        _board(view, dice, x, z, (size * dice(10, 14) // 10, foot, 2 * size), pale)
    elif kind == 3:  # a mandatory sign: an arrow on a disc
        board = paint(view.far(dice.near((40, 80, 170), 30), z), SIGN)
        view.disc(x, z, (0, middle), (size, size), pale)
        view.disc(x, z, (0, middle), (size * 7 // 8, size * 7 // 8), board)
        tip = (0, middle + size * 5 // 8)
        view.flat(x, z, [(-size // 2, middle), tip, (size // 2, middle)], pale)
        view.box(x, z, (-8, middle - size // 2), (8, middle), pale)
    else:
        view.box(x, z, (-34, foot), (34, foot + 150), ink)
        view.box(x, z, (-27, foot + 7), (27, foot + 143), paint((55, 55, 55), SIGN))
        lit = dice(0, 2)
        for i, rgb in enumerate(((60, 220, 110), (240, 180, 50), (235, 50, 40))):
            lamp = paint(rgb if i == lit else mix(rgb, (30, 30, 30), 180), SIGN)
            view.disc(x, z, (0, foot + 30 + 45 * i), (17, 17), lamp)


def _board(view: View, dice: Dice, x: int, z: int, form: tuple[int, int, int], pale: Paint) -> None:
    """Paints a board with lines of text; `form` is half its width, its foot and its height."""
    wide, foot, high = form
    rgb = dice.pick(((40, 80, 170), (30, 110, 70), (200, 170, 40), (120, 70, 50)))
    view.box(x, z, (-wide, foot), (wide, foot + high), pale)
    face = paint(view.far(dice.near(rgb, 20), z), SIGN)
    view.box(x, z, (8 - wide, foot + 8), (wide - 8, foot + high - 8), face)
    for line in (1, 2, 3):
        level = foot + line * high // 4
        view.box(x, z, (-wide * 5 // 8, level - 7), (wide * dice(1, 5) // 8, level + 7), pale)


def tree(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a trunk and a crown of overlapping clumps of leaves."""
    leaf = dice.near(dice.pick(FOLIAGE), 22)
    bark = paint(view.far(dice.near((95, 75, 60), 25), z), TREE, BARK)
    trunk, wide = dice(180, 300), dice(130, 260)
    tall = wide * dice(80, 130) // 100
    view.flat(x, z, [(-24, 0), (24, 0), (16, trunk + 80), (-16, trunk + 80)], bark)
    for i in range(7):
        shade = mix(leaf, (255, 255, 255) if i % 2 else (0, 0, 0), dice(0, 60))
        at = (dice(-wide, wide) * 5 // 8, trunk + tall + dice(-tall, tall) * 5 // 8)
        view.disc(
            x,
            z,
            at,
            (wide * dice(45, 70) // 100, tall * dice(45, 70) // 100),
            paint(view.far(shade, z), TREE, LEAVES),
        )


def bush(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints leaves down to the ground."""
    leaf = dice.near(dice.pick(FOLIAGE), 22)
    for i in range(4):
        shade = mix(leaf, (255, 255, 255) if i % 2 else (0, 0, 0), dice(0, 60))
        high = dice(60, 110)
        view.disc(
            x,
            z,
            (dice(-120, 120), high - 10),
            (dice(70, 130), high),
            paint(view.far(shade, z), TREE, LEAVES),
        )


def odd(view: View, dice: Dice, x: int, z: int) -> None:
    """Paints a bin or a traffic cone, things without class."""
    rgb = view.far(dice.near(dice.pick(LACQUER), 20), z)
    body, lid = paint(rgb, ODD), paint(mix(rgb, (0, 0, 0), 100), ODD)
    if dice.chance(50):
        view.flat(x, z, [(-28, 0), (28, 0), (34, 100), (-34, 100)], body)
        view.box(x, z, (-38, 96), (38, 110), lid)
    else:
        view.flat(x, z, [(-32, 0), (32, 0), (6, 80), (-6, 80)], paint((225, 100, 40), ODD))
        view.box(x, z, (-20, 30), (20, 48), paint((235, 235, 235), ODD))

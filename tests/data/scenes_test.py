import concurrent.futures
import hashlib
import pickle

import numpy as np
import pytest

from segjax.data import scene_canvas, scene_things, scenes
from segjax.data.spec import VOID
from segjax.errors import InputError

K = scenes.SPEC.num_classes

# sha256 of image and label. A change here changes the data set: every result on it is void.
PINNED = [
    (0, 0, (96, 128), "e1183dbb2e3a8ce2"),
    (0, 1, (96, 128), "4c3f5dc338572785"),
    (0, 2, (96, 128), "b2848ad856df049e"),
    (0, 3, (96, 128), "25c8d11b78cc0b3f"),
    (1, 0, (96, 128), "1bc74565cf6c6949"),
    (1, 7, (96, 128), "e221df761d4253fd"),
    (1, 100, (96, 128), "26e2ae1f853cb336"),
    (1, 99999, (96, 128), "009581b5f90b60d7"),
    (1099511627776, 5, (96, 128), "34b100b6163cf93d"),
    (-1, 5, (96, 128), "455aa24713b610a3"),
    (7, 8589934592, (96, 128), "ddd20a80a0705f8e"),
    (12345, 678, (96, 128), "9a168f0830140557"),
    (5, 5, (96, 128), "fc48035d12bedd01"),
    (5, 6, (96, 128), "280abedd2a5bcf10"),
    (3, 1, (48, 64), "dc1ce3daa00bf94d"),
    (3, 2, (61, 83), "8a808f31808ad971"),
    (3, 3, (64, 201), "6355db7ce332b919"),
    (3, 4, (181, 97), "1a944882c118401d"),
    (3, 5, (360, 480), "c2b00b79ea32af4b"),
    (3, 6, (720, 960), "5c9cc7d5395c4707"),
]


def digest(image: np.ndarray, label: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()[:16]


def mean_iou(truth: np.ndarray, pred: np.ndarray) -> float:
    """Mean IoU over all classes, void pixels left out."""
    valid = truth < K
    index = truth[valid].astype(np.int64) * K + pred[valid]
    counts = np.bincount(index, minlength=K * K).reshape(K, K)
    hits = np.diag(counts)
    return float(np.mean(hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)))


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    pairs = [scenes.draw(11, i) for i in range(250)]
    return np.stack([image for image, _ in pairs]), np.stack([label for _, label in pairs])


@pytest.mark.parametrize(("seed", "index", "size", "expected"), PINNED)
def test_a_scene_has_its_pinned_bytes(seed, index, size, expected):
    assert digest(*scenes.draw(seed, index, size)) == expected


def test_a_scene_depends_on_neither_the_order_of_calls_nor_the_thread():
    alone = [digest(*scenes.draw(4, i)) for i in range(12)]
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        order = list(reversed(range(12))) * 2
        crowd = dict(zip(order, pool.map(lambda i: digest(*scenes.draw(4, i)), order), strict=True))
    assert [crowd[i] for i in range(12)] == alone


def test_every_seed_and_index_is_another_scene():
    digests = {digest(*scenes.draw(seed, index)) for seed in range(-2, 4) for index in range(6)}
    assert len(digests) == 36


@pytest.mark.parametrize("size", [(48, 64), (49, 65), (96, 128), (130, 77), (48, 300), (301, 64)])
def test_any_size_gives_bytes_and_declared_labels(size):
    for index in range(4):
        image, label = scenes.draw(0, index, size)
        assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
        assert (label.shape, label.dtype) == (size, np.uint8)
        assert set(np.unique(label)) <= {*range(K), VOID}
        assert len(np.unique(label)) >= 6


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (0, 0)])
def test_a_size_that_is_too_small_is_refused_with_the_allowed_one(size):
    with pytest.raises(InputError, match="at least 48 x 64"):
        scenes.draw(0, 0, size)
    with pytest.raises(InputError, match="at least 48 x 64"):
        scenes.Scenes(seed=0, count=3, size=size)


def test_the_labels_are_already_the_classes_of_the_spec(drawn):
    assert scenes.SPEC.classes[0] == "sky"
    assert scenes.SPEC.classes[-1] == "bicyclist"
    raw = np.arange(12, dtype=np.uint8)[None]
    assert scenes.SPEC.encode(raw, "here").tolist() == [[*range(11), VOID]]


def test_every_class_is_in_a_third_of_the_scenes_and_void_is_a_few_percent(drawn):
    _, label = drawn
    pixels = np.stack([(label == k).sum((1, 2)) for k in range(K)])
    assert ((pixels >= 20).mean(1) > 1 / 3).all()
    assert 0.02 < (label == VOID).mean() < 0.08


def test_mean_colours_alone_do_not_tell_the_classes(drawn):
    image, label = drawn
    means = np.stack([image[:200][label[:200] == k].mean(0) for k in range(K)])
    # |x - m|^2 less |x|^2
    distance = (means**2).sum(1) - 2 * image[200:].astype(np.float32) @ means.T
    assert mean_iou(label[200:], distance.argmin(-1)) <= 0.20


def test_a_table_of_colour_and_place_does_not_tell_the_classes(drawn):
    image, label = drawn
    height, width = label.shape[1:]
    place = (np.arange(height) * 6 // height)[:, None] * 8 + np.arange(width) * 8 // width
    bins = image.astype(np.int64) // 32
    cell = place * 512 + (bins[..., 0] * 8 + bins[..., 1]) * 8 + bins[..., 2]
    valid = label[:200] < K
    truth = label[:200][valid].astype(np.int64)

    def histogram(cells: np.ndarray, count: int) -> np.ndarray:
        index = cells[valid] * K + truth
        return np.bincount(index, minlength=count * K).reshape(count, K)

    table = histogram(cell[:200], 48 * 512)
    prior = histogram(np.broadcast_to(place, valid.shape), 48)
    prior = prior / prior.sum(1, keepdims=True)  # backs off where a colour was rare
    # Rare classes weigh more than their pixels: the strongest such table for a mean over classes.
    weights = np.bincount(truth, minlength=K) ** -0.5
    score = (table[cell[200:]] + 2 * prior[place]) * weights
    miou = mean_iou(label[200:], score.argmax(-1))
    assert 0.15 < miou <= 0.35


@pytest.mark.parametrize(
    ("thing", "classes"),
    [
        (scene_things.car, {scene_canvas.CAR}),
        (scene_things.crossing_car, {scene_canvas.CAR}),
        (scene_things.pedestrian, {scene_canvas.PEDESTRIAN}),
        (scene_things.bicyclist, {scene_canvas.BICYCLIST}),
        (scene_things.pole, {scene_canvas.POLE}),
        (scene_things.sign, {scene_canvas.POLE, scene_canvas.SIGN}),
        (scene_things.tree, {scene_canvas.TREE}),
        (scene_things.bush, {scene_canvas.TREE}),
        (scene_things.odd, {scene_canvas.ODD}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_thing_labels_exactly_the_pixels_that_it_colours(thing, classes):
    for index in range(20):
        dice = scene_canvas.Dice(1, index)
        view = scene_canvas.View(dice, (96, 128))
        view.pixels[:] = 0xF << 24
        thing(view, dice, 100, 700)
        label = view.pixels >> 24 & 0xF
        assert set(np.unique(label)) == classes | {0xF}
        assert ((view.pixels & 0xFFFFFF != 0) <= (label != 0xF)).all()
        columns = np.nonzero((label != 0xF).any(0))[0]
        middle = view.at(100, 0, 700)[0]
        assert columns.min() - 1 <= middle <= columns.max() + 1


def test_a_thing_twice_as_far_is_half_as_large():
    areas = []
    for z in (500, 1000):
        dice = scene_canvas.Dice(1, 2)
        view = scene_canvas.View(dice, (384, 512))
        scene_things.pedestrian(view, dice, 0, z)
        areas.append(np.count_nonzero(view.pixels))
    assert 3.3 < areas[0] / areas[1] < 4.5


def test_a_wall_is_seen_where_its_points_are_projected():
    view = scene_canvas.View(scene_canvas.Dice(0, 0), (384, 512))
    pixels, z, y = view.wall(-400, 900, 3000, 500)
    pixels[(y >= 0) & (y < 500)] = 1
    for depth, height in ((1000, 30), (1000, 200), (1500, 450), (2500, 250)):
        column, row = view.at(-400, height, depth)
        assert view.pixels[row, column] == 1
    column, row = view.at(-400, 530, 1500)
    assert view.pixels[row, column] == 0
    assert (np.diff(z[0]) >= 0).all()


def test_the_source_gives_the_scenes_of_its_seed_and_survives_pickling():
    source = pickle.loads(pickle.dumps(scenes.Scenes(seed=3, count=5, size=(50, 70))))
    assert len(source) == 5
    assert source.size == (50, 70)
    assert source.name(12) == "scene-000012"
    assert digest(*source[4]) == digest(*scenes.draw(3, 4, (50, 70)))
    assert len([label for _, label in source]) == 5
    for index in (5, -1):
        with pytest.raises(IndexError):
            source[index]


def test_a_source_without_scenes_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        scenes.Scenes(seed=0, count=0, size=(96, 128))

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import sharding
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.models import resize
from segjax.training import augment
from tests import tiny

CANVAS = (48, 64)
FILL = (124.0, 116.0, 104.0)
STILL = {
    "size": CANVAS,
    "scale": (1.0, 1.0),
    "base_scale": 1.0,
    "base_size": (0, 0),
    "flip": 0.0,
    "rotation": 0.0,
    "rotation_chance": 1.0,
    "blur": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
}
GEOMETRY = {"size": (32, 40), "scale": (0.5, 2.0), "flip": 0.5, "rotation": 20.0}
COLOR = {"brightness": 0.1, "contrast": 0.3, "saturation": 0.3, "hue": 20.0}
LIVELY = STILL | GEOMETRY | COLOR


@dataclasses.dataclass(frozen=True)
class Grey(augment.Augment):
    """A user's augmentation: ours, and a share of the examples with one channel alone."""

    share: float = 0.5

    def __call__(self, key, image, label, size, fill):
        """An augmented example."""
        image, label = super().__call__(key, image, label, size, fill)
        grey = jax.random.bernoulli(jax.random.fold_in(key, 3), self.share)
        return jnp.where(grey, image[..., 1:2], image), label


@functools.cache
def program(**options):
    """The jitted augmentation: batch -> image, label."""
    made = augment.build(**options)
    return jax.jit(lambda batch: augment.batch(jax.random.key(7), batch, made, FILL))


def run(batch: dict[str, np.ndarray], **changes) -> tuple[np.ndarray, np.ndarray]:
    image, label = program(**STILL | changes)(batch)
    return np.asarray(image), np.asarray(label)


NAMES = ("image", "label", "size", "position", "position_high")


def repeated(image: np.ndarray, label: np.ndarray, rows: int = 1) -> dict[str, np.ndarray]:
    """The same example at `rows` places of the stream."""
    return {
        "image": np.repeat(image[None].astype(np.uint8), rows, axis=0),
        "label": np.repeat(label[None].astype(np.uint8), rows, axis=0),
        "size": np.tile(np.array(label.shape, np.int32), (rows, 1)),
        "position": np.arange(rows, dtype=np.uint32),
        "position_high": np.zeros(rows, np.uint32),
    }


def plain(color: tuple[int, int, int], rows: int) -> dict[str, np.ndarray]:
    """An image of one colour."""
    return repeated(np.broadcast_to(color, (*CANVAS, 3)), np.zeros(CANVAS), rows)


def ramps(rows: int) -> dict[str, np.ndarray]:
    """Red is 4 x, green 5 y, label x: where a pixel came from can be read off it."""
    y, x = np.indices(CANVAS)
    return repeated(np.stack([4 * x, 5 * y, 0 * x], axis=-1), x, rows)


def origins(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `ramps`: y and x in source pixels, centres at whole numbers."""
    return image[..., 1] / 5, image[..., 0] / 4


def noise(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, tiny.K, CANVAS)
    return rng.integers(0, 256, (*CANVAS, 3)), np.where(rng.random(CANVAS) < 0.1, VOID, label)


@pytest.mark.parametrize("base_size", [(0, 0), CANVAS])
def test_without_options_or_at_its_own_size_nothing_changes(base_size):
    image, label = noise()
    got_image, got_label = run(repeated(image, label), base_size=base_size)
    assert got_image.dtype == np.float32
    assert got_label.dtype == np.uint8
    np.testing.assert_array_equal(got_image[0], image)
    np.testing.assert_array_equal(got_label[0], label)


@pytest.mark.parametrize("how", [{"base_scale": 0.5}, {"scale": (0.5, 0.5)}])
def test_half_the_size_is_the_mean_of_two_by_two(how):
    image, label = noise()
    got, got_label = run(repeated(image, label), size=(24, 32), **how)
    means = image.reshape(24, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(got[0], means, atol=1e-3)
    windows = label.reshape(24, 2, 32, 2)
    assert (windows == got_label[0][:, None, :, None]).any((1, 3)).all()


def test_a_flip_mirrors_image_and_label():
    image, label = noise()
    got_image, got_label = run(repeated(image, label), flip=1.0)
    np.testing.assert_array_equal(got_image[0], image[:, ::-1])
    np.testing.assert_array_equal(got_label[0], label[:, ::-1])


def test_a_flip_has_its_probability():
    image, label = noise()
    got_image, got_label = run(repeated(image, label, 200), flip=0.25)
    flipped = (got_label == label[:, ::-1]).all((1, 2))
    assert ((got_label == label).all((1, 2)) ^ flipped).all()
    np.testing.assert_array_equal(got_image[flipped][0], image[:, ::-1])
    assert 0.15 < flipped.mean() < 0.35


def test_crops_are_whole_pixels_inside_the_image_and_reach_every_side():
    image, label = run(ramps(300), size=(40, 50))
    y, x = origins(image)
    np.testing.assert_array_equal(label, x)
    start_y, start_x = y[:, 0, 0], x[:, 0, 0]
    assert set(start_y) == set(range(48 - 40 + 1))
    assert set(start_x) == set(range(64 - 50 + 1))
    np.testing.assert_array_equal(y[:, :, 0] - start_y[:, None], np.tile(np.arange(40), (300, 1)))


def test_a_crop_larger_than_the_image_holds_it_whole_and_void_around():
    image, label = run(ramps(50), base_scale=0.5)
    inside = label != VOID
    assert (inside.sum((1, 2)) == 24 * 32).all()
    assert (image[~inside] == FILL).all()
    corners = {(np.argmax(m.any(1)), np.argmax(m.any(0))) for m in inside}
    assert len(corners) > 20  # placed anywhere
    assert max(y for y, _ in corners) <= 24
    assert max(x for _, x in corners) <= 32


def test_scales_are_drawn_evenly_in_their_logarithm():
    image, _ = run(ramps(300), size=(16, 16), scale=(0.5, 2.0), base_scale=0.8)
    _, x = origins(image)
    drawn = np.log2(1 / ((x[:, 8, 12] - x[:, 8, 4]) / 8) / 0.8)
    assert -1.01 < drawn.min() < -0.95
    assert 0.95 < drawn.max() < 1.01
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 2 / np.sqrt(12)) < 0.05


def test_a_rotation_turns_about_the_centre_and_keeps_lengths():
    image, label = run(ramps(100), rotation=30.0)
    y, x = origins(image)
    middle = [v[:, 23:25, 31:33].mean((1, 2)) for v in (y, x)]
    np.testing.assert_allclose(middle[0], 23.5, atol=0.02)
    np.testing.assert_allclose(middle[1], 31.5, atol=0.02)
    # Differences over 12 pixels each way from the centre: the columns of the rotation.
    right = np.stack([v[:, 24, 38] - v[:, 24, 26] for v in (y, x)]) / 12
    down = np.stack([v[:, 30, 32] - v[:, 18, 32] for v in (y, x)]) / 12
    for column in (right, down):
        np.testing.assert_allclose(np.hypot(*column), 1, atol=2e-3)
    np.testing.assert_allclose((right * down).sum(0), 0, atol=2e-3)
    np.testing.assert_allclose(right[1], down[0], atol=2e-3)  # a turn, not a mirror
    degrees = np.degrees(np.arctan2(right[0], right[1]))
    assert 28 < degrees.max() < 30.2
    assert -30.2 < degrees.min() < -28
    assert (label == VOID).any()  # corners came from outside


def test_image_and_label_come_from_the_same_place():
    """Colours that name the label: where no two are blended, they still name it."""
    classes = np.random.default_rng(0).integers(0, 3, (6, 8)).repeat(8, 0).repeat(8, 1)
    batch = repeated(250 * np.eye(3)[classes], classes, 60)
    image, label = run(batch, **GEOMETRY)
    inside = label != VOID
    pure = inside & (image.max(-1) > 249)
    assert pure[inside].mean() > 0.5
    np.testing.assert_array_equal(label[pure], image[pure].argmax(-1))
    # The nearest of four pixels has a quarter of the weight at least.
    share = np.take_along_axis(image, np.where(inside, label, 0)[..., None].astype(int), -1)[..., 0]
    assert share[inside].min() > 250 * 0.24


def test_labels_come_from_the_image_or_are_void():
    image, _ = noise()
    label = np.random.default_rng(0).choice([3, 9, 200, VOID], CANVAS)
    batch = repeated(image, label, 20)
    got_image, got_label = run(batch, **LIVELY)
    assert set(np.unique(got_label)) == {3, 9, 200, VOID}
    assert got_image.min() >= 0
    assert got_image.max() <= 255


def test_outside_is_the_fill_whatever_the_colours_do():
    image, label = noise()
    batch = repeated(image, np.zeros_like(label), 20)
    got_image, got_label = run(batch, **LIVELY)
    outside = got_label == VOID
    assert 0.02 < outside.mean() < 0.9
    assert (got_image[outside] == FILL).all()


def test_an_image_at_a_twelfth_of_its_size_is_still_there():
    _, label = run(ramps(4), size=(16, 16), scale=(1 / 12, 1 / 12))
    assert ((label != VOID).sum((1, 2)) == 4 * 5).all()


@pytest.mark.parametrize(
    ("options", "image_crc", "label_crc"),
    [
        (GEOMETRY, 0xDA916C9C, 0x3872C678),
        (GEOMETRY | {"base_scale": 0.5, "scale": (0.75, 1.75)}, 0xB77BD2E4, 0x0642EB5B),
        ({"base_scale": 1 / 3}, 0xE3D0190E, 0xBF4E80A2),
    ],
)
def test_the_warp_gives_the_bits_that_it_gave_to_runs_of_the_past(options, image_crc, label_crc):
    rng = np.random.default_rng(3)
    batch = {
        "image": rng.integers(0, 256, (64, *CANVAS, 3), np.uint8),
        "label": rng.integers(0, 12, (64, *CANVAS), np.uint8),
        "size": np.stack([rng.integers(20, 49, 64), rng.integers(20, 65, 64)], 1).astype(np.int32),
        "position": np.arange(64, dtype=np.uint32),
        "position_high": np.zeros(64, np.uint32),
    }
    image, label = run(batch, **options)
    assert zlib.crc32(image.tobytes()) == image_crc
    assert zlib.crc32(label.tobytes()) == label_crc


def test_a_fixed_size_shows_each_image_whole_as_evaluation_sees_it():
    image, label = noise()
    sizes = np.array([(48, 64), (47, 33), (20, 64), (37, 10)], np.int32)
    batch = repeated(image, np.where(label == VOID, 0, label), 4) | {"size": sizes}
    seen = (30, 24)
    got_image, got_label = run(batch, size=seen, base_size=seen)
    for row, (height, width) in enumerate(sizes):
        part = image[None, :height, :width]
        half_pixel = resize.Resize("half_pixel")
        matrices = half_pixel.matrix(height, seen[0]), half_pixel.matrix(width, seen[1])
        (expected,) = np.asarray(resize.apply(jax.numpy.asarray(part), *matrices))
        np.testing.assert_allclose(got_image[row], expected, atol=2.5)  # weights of 8 bits
        y, x = (
            (np.arange(n) * 2 + 1) * s // (2 * n)
            for n, s in zip(seen, (height, width), strict=True)
        )
        assert (got_label[row] == batch["label"][row][y[:, None], x]).mean() > 0.97  # but for ties


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 64), (48, 61)])
def test_no_image_is_too_small_or_too_narrow_for_the_fixed_size(size):
    image, _ = noise()
    batch = repeated(image, np.full(CANVAS, 3), 1) | {"size": np.array([size], np.int32)}
    for seen in ((224, 224), (300, 7)):
        _, label = run(batch, size=seen, base_size=seen)
        assert (label == 3).all()


@pytest.mark.parametrize("wide", [2, 200])
def test_augmentation_multiplies_on_top_of_the_fixed_size(wide):
    """An image stretched in width looks like the one it was stretched from, turned and all."""
    narrow = np.indices((16, 32)).sum(0)  # y + x
    stretched = narrow.repeat(wide, axis=1)
    options = GEOMETRY | {"rotation": 80.0, "scale": (0.25, 2.0)}
    results = [
        run(repeated(np.stack([label] * 3, -1), label, 40), **options, base_size=base_size)[1]
        for label, base_size in ((narrow, (0, 0)), (stretched, (16, 32)))
    ]
    assert (results[0] == results[1]).mean() > 0.99
    inside = results[0] != VOID
    assert 0.2 < inside.mean() < 0.9
    assert (results[0] == results[1])[inside].mean() > 0.97


@pytest.fixture(scope="module", params=["standard", "tests.training.augment_test:Grey"])
def options(request) -> dict:
    """Ours, or a user's."""
    return LIVELY | {"name": request.param}


@pytest.fixture(scope="module")
def lively(options) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Eight examples at eight places, and their augmentations."""
    batch = tiny.batch(0, 8, CANVAS)
    batch = {name: batch[name] for name in NAMES}
    batch["size"] = batch["size"] - np.arange(8)[:, None]
    return batch, *run(batch, **options)


def test_an_example_is_the_same_in_any_row_of_any_batch_on_any_devices(lively, options):
    batch, image, label = lively
    for rows in ([3, 1, 7, 0, 2, 6, 5, 4], [5], [2, 2, 4]):
        got_image, got_label = run({name: x[rows] for name, x in batch.items()}, **options)
        np.testing.assert_array_equal(got_image, image[rows])
        np.testing.assert_array_equal(got_label, label[rows])
    for space in (1, 2):
        spread = sharding.put_batch(sharding.make_mesh(space), batch | {"weight": np.ones(8)})
        if space == 2:  # 8 rows over 4, height over 2
            assert spread["image"].addressable_shards[0].data.shape == (2, 24, 64, 3)
        got_image, got_label = program(**options)({name: spread[name] for name in batch})
        np.testing.assert_array_equal(got_image, image)
        np.testing.assert_array_equal(got_label, label)


def test_the_next_epoch_looks_different(lively, options):
    batch, image, _ = lively
    later, _ = run(batch | {"position": batch["position"] + 8}, **options)
    assert (later != image).any((1, 2, 3)).all()


def test_the_stream_does_not_repeat_after_two_to_the_thirty_two_examples(lively, options):
    batch, image, _ = lively
    seen = [image]
    for high in (1, 2):
        again, _ = run(batch | {"position_high": np.full(8, high, np.uint32)}, **options)
        assert all((again != before).any((1, 2, 3)).all() for before in seen)
        seen.append(again)


def test_a_larger_canvas_and_what_fills_it_change_nothing():
    size = (35, 50)
    tight = tiny.batch(0, 8, size)
    tight = {name: tight[name] for name in NAMES}
    rng = np.random.default_rng(1)
    wide = dict(tight)
    for name in ("image", "label"):
        garbage = rng.integers(0, 256, (8, *CANVAS, *tight[name].shape[3:]), np.uint8)
        garbage[:, : size[0], : size[1]] = tight[name]
        wide[name] = garbage
    for got, expected in zip(run(wide, **LIVELY), run(tight, **LIVELY), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_colours_are_mapped_in_full_precision_on_accelerators(lively, options):
    assert not tiny.products_below_full_precision(program(**options), lively[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (96, 128, 48, 64)},
        {"scale": (0.0, 1.0)},
        {"scale": (2.0, 1.0)},
        {"scale": (0.01, 1.0)},
        {"flip": 1.5},
        {"contrast": 1.0},
        {"brightness": -0.1},
        {"saturation": -0.1},
    ],
)
def test_options_out_of_range_are_refused(changes):
    with pytest.raises(InputError, match=f"augment.*{next(iter(changes))}"):
        augment.Augment(**STILL | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_size": (224, 0)}, r"config.input_size is .* got \(224, 0\)"),
        ({"base_size": (-1, -1)}, r"config.input_size is .* got \(-1, -1\)"),
        ({"base_size": (48, 64), "base_scale": 0.5}, "input_scale 0.5 and config.input_size .48"),
    ],
)
def test_a_fixed_size_is_two_sides_and_no_scale_beside_it(changes, message):
    with pytest.raises(InputError, match=message):
        augment.Augment(**STILL | changes)

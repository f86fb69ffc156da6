"""Views, windows and their fusion, on networks whose answer numpy or OpenCV knows."""

import math

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.evaluation import fusion as multiview
from segjax.evaluation import steps, window_grid
from segjax.evaluation.fusion import MultiView, nearest
from segjax.evaluation.protocol import parse
from segjax.models.features import Scores
from segjax.models.resize import Resize

K = 4
MEAN = (120.0, 110.0, 100.0)
COLOURS = np.random.default_rng(0).normal(0, 0.05, (3, K)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(0, 0.02, (5, 5, 3, K)).astype(np.float32)


def pointwise(params, batch_stats, image) -> Scores:
    """A 1 x 1 convolution."""
    return Scores((image - 110) @ params, Resize("half_pixel"))


def strided(params, batch_stats, image) -> Scores:
    """Looks at 5 x 5 pixels, at every fourth."""
    values = jax.lax.conv_general_dilated(
        image - 110, params, (4, 4), ((2, 2), (2, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return Scores(jnp.tanh(values) * 4, Resize("corners"))


def batch_of(image: np.ndarray, rows: int = 1) -> dict[str, np.ndarray]:
    """The image in the first row, flipped versions in the others; truth is the row's number."""
    images = np.stack([image[:, :: (-1) ** i] for i in range(rows)])
    label = np.broadcast_to(np.arange(rows, dtype=np.uint8)[:, None, None] % K, images.shape[:3])
    return {
        "image": images,
        "label": label.copy(),
        "size": np.tile(np.array(image.shape[:2], np.int32), (rows, 1)),
        "index": np.arange(rows, dtype=np.uint32),
        "weight": np.ones(rows, np.float32),
    }


def made(network, text: str, *, devices: int = 1, batch_size: int = 3, **more) -> MultiView:
    """Views of a network."""

    def judge(logits, label):
        return steps.judge(logits, label, num_classes=K, class_weights=None)

    return MultiView(
        network, judge, parse(text), seen=lambda size: size, mean=MEAN, num_classes=K,
        batch_size=batch_size, devices=jax.devices()[:devices], **more,
    )  # fmt: skip


def run(network, params, text: str, batch, **options):
    """(fused scores, what is found)."""
    how = made(network, text, **options)
    weights = how.weights(jnp.asarray(params), {})
    return how.scores(weights, batch), how(weights, batch)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)[:height, :width]


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("stride", [1.0, 2 / 3, 0.5, 0.11])
@pytest.mark.parametrize("blend", ["uniform", "smooth"])
@pytest.mark.parametrize("softmax_at", ["before_resize", "after_resize"])
def test_a_pointwise_network_says_the_same_whole_and_in_windows(stride, blend, softmax_at):
    batch = batch_of(noise(53, 71), 2)
    expected = softmax((batch["image"].astype(np.float64) - 110) @ COLOURS)
    text = f"single, tile=(19, 24), stride={stride}, blend={blend!r}, softmax={softmax_at!r}"
    scores, found = run(pointwise, COLOURS, text, batch)
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    np.testing.assert_array_equal(found["prediction"], expected.argmax(-1))


@pytest.mark.parametrize("fusion", ["mean_probability", "mean_logit", "max_probability"])
@pytest.mark.parametrize("tile", [(0, 0), (40, 24)])
def test_flips_leave_a_constant_image_alone(fusion, tile):
    batch = batch_of(np.full((37, 50, 3), 90, np.uint8))
    text = f"single, tile={tile}, fusion={fusion!r}"
    once, _ = run(pointwise, COLOURS, text, batch)
    twice, _ = run(pointwise, COLOURS, text + ", flip=True", batch)
    np.testing.assert_allclose(twice, once, atol=1e-6)
    assert np.ptp(once, axis=(1, 2)).max() < 1e-5


def whole_views(image: np.ndarray, scales, flip: bool, at_input: bool) -> list[np.ndarray]:
    """Every view's logits, or probabilities at its size, at the image's size: OpenCV resizes."""
    size, found = image.shape[1::-1], []
    for scale in scales:
        wanted = [max(1, round(scale * n)) for n in size]
        scaled = cv2.resize(image.astype(np.float32), wanted, interpolation=cv2.INTER_LINEAR)
        for mirrored in (False, True)[: 1 + flip]:
            seen = scaled[:, ::-1] if mirrored else scaled
            scores = strided(jnp.asarray(KERNEL), {}, jnp.asarray(seen[None]))
            grid = scores.values.shape[1:3]
            rows, cols = scores.resize.matrices(grid, seen.shape[:2])
            logits = np.einsum("Hh,hwk,Ww->HWk", rows, np.asarray(scores.values[0]), cols)
            logits = softmax(logits) if at_input else logits
            logits = logits[:, ::-1] if mirrored else logits
            found.append(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR))
    return found


@pytest.mark.parametrize(
    ("fusion", "order", "fuse"),
    [
        ("mean_probability", "after_resize", lambda v: np.mean([softmax(x) for x in v], 0)),
        ("mean_probability", "before_resize", lambda v: np.mean(v, 0)),
        ("max_probability", "after_resize", lambda v: np.max([softmax(x) for x in v], 0)),
        ("max_probability", "before_resize", lambda v: np.max(v, 0)),
        ("mean_logit", "after_resize", lambda v: np.mean(v, 0)),
        ("max_logit", "after_resize", lambda v: np.max(v, 0)),
    ],
)
@pytest.mark.parametrize("size", [(37, 50), (64, 64), (5, 91)])
def test_scales_and_flips_fuse_as_numpy_does(fusion, order, fuse, size):
    image = noise(*size)
    text = f"single, scales=(0.75, 1.0, 1.5), flip=True, fusion={fusion!r}, softmax={order!r}"
    scores, _ = run(strided, KERNEL, text, batch_of(image))
    at_input = order == "before_resize"
    expected = fuse(whole_views(image, (0.75, 1.0, 1.5), True, at_input))
    np.testing.assert_allclose(scores[0], expected, atol=2e-5 * np.abs(expected).max())


def test_windows_cover_the_view_and_end_inside():
    view = window_grid.of_image(parse("pspnet_ms_flip"), (375, 500), (375, 500))[0]
    assert view.rows.view == 192
    assert view.rows.starts == (-(473 - 192) // 2 + 1,)  # framed: 140 before, 141 after
    wide = window_grid.of_image(parse("single, tile=(473, 473)"), (500, 1200), (500, 1200))[0]
    assert wide.cols.starts == (0, 316, 632, 727)
    assert wide.rows.starts == (0, 27)


@pytest.mark.parametrize(
    ("size", "others"),
    [
        ((96, 130), [{"strip_bytes": 1}, {"devices": 8, "strip_bytes": 1}]),  # 64 rows
        # 128 rows where views add up, else 64; and 256, else 128, with windows lower than a strip.
        ((300, 60), [{"strip_bytes": 400_000}, {"devices": 4, "strip_bytes": 800_000}]),
    ],
)
def test_strips_devices_and_batches_change_nothing(size, others):
    batch = batch_of(noise(*size), 3)
    for text in (
        "single, scales=(0.5, 1.25), flip=True, tile=(32, 48), softmax='before_resize'",
        "single, scales=(0.5, 1.25), flip=True, tile=(32, 48), blend='smooth'",
        "single, scales=(0.5, 1.25), fusion='max_logit'",
    ):
        expected, whole = run(strided, KERNEL, text, batch, batch_size=64)
        for options in others:
            scores, found = run(strided, KERNEL, text, batch, **options)
            np.testing.assert_allclose(scores, expected, atol=3e-6 * np.abs(expected).max())
            assert (found["confusion"].sum((1, 2)) == size[0] * size[1]).all()
            assert found["pixels"] == whole["pixels"]
            assert found["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_counts_are_those_of_the_predictions_and_rows_without_weight_are_left_out():
    batch = batch_of(noise(45, 62), 3)
    batch["weight"][1] = 0
    batch["label"][0, :9] = 255
    scores, found = run(strided, KERNEL, "single, flip=True", batch)
    for row in range(3):
        expected = np.zeros((K, K), int)
        if row != 1:
            valid = batch["label"][row] < K
            np.add.at(expected, (batch["label"][row][valid], found["prediction"][row][valid]), 1)
        np.testing.assert_array_equal(found["confusion"][row], expected)
    kept = (batch["label"] < K) & (batch["weight"] > 0)[:, None, None]
    truth = np.where(kept, batch["label"], 0)
    chance = np.take_along_axis(scores, truth[..., None].astype(int), -1)[..., 0]
    assert found["loss"] == pytest.approx(-np.log(chance[kept]).sum(), rel=1e-5)
    assert found["pixels"] == kept.sum()
    assert found["calibration"][0].sum() == kept.sum()
    sure = scores.max(-1)[kept]
    assert found["calibration"][1].sum() == pytest.approx(sure.sum(), rel=1e-5)


def test_labels_at_the_size_of_the_input_come_from_the_nearest_pixel():
    np.testing.assert_array_equal(nearest(7, 3), [0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(nearest(3, 7), [1, 3, 5])
    image = noise(30, 44)
    _, found = run(pointwise, COLOURS, "single, long_side=22, argmax='input'", batch_of(image))
    assert found["prediction"].shape == (1, 15, 22)
    small = cv2.resize(image.astype(np.float32), (22, 15), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(found["prediction"][0], ((small - 110) @ COLOURS).argmax(-1))


@pytest.mark.parametrize("views", ["softmax='before_resize'", "fusion='max_logit'"])
def test_of_a_huge_image_a_strip_is_held(views):
    side = 10_000
    how = made(pointwise, f"single, tile=(513, 513), {window_grid}")
    huge = np.broadcast_to(np.uint8(0), (1, side, side, 3))
    work = multiview._Work(how, {"image": huge, "weight": np.ones(1, np.float32)})
    held = 4 * K * work.width * work.strip * (1 if how.protocol.linear else 2)
    assert multiview.STRIP_BYTES / 2 < held <= multiview.STRIP_BYTES
    across = len(work.views[0].cols.starts)
    for first in range(0, side, work.strip):
        alive = sum(len(part.windows) for part in work.parts_at(first))
        rows = math.ceil((work.strip + 513) / 342)  # of windows that reach it
        assert alive <= across * rows + 2 * how.batch_size


def test_images_of_many_sizes_share_programs():
    text = "pspnet_ms_flip, tile=(33, 33), long_side=64"
    how = made(strided, text, batch_size=4)
    weights = how.weights(jnp.asarray(KERNEL), {})
    for height, width in ((37, 50), (40, 53), (50, 33), (61, 64), (20, 60)):
        how(weights, batch_of(noise(height, width)))
    assert len(how.programs) <= 6

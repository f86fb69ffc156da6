"""Views, windows and their fusion, on networks whose answer numpy or OpenCV knows."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import metrics
from segjax.data.spec import DatasetSpec, hls_palette
from segjax.evaluation import steps, views
from segjax.evaluation.fusion import MultiView
from segjax.models import functional
from segjax.models.features import Scores
from segjax.models.preprocess import Preprocess
from segjax.models.resize import Resize
from segjax.network import Model, Network
from tests import tiny
from tests.evaluation import made

K = 4
SPEC = DatasetSpec("four", tuple("abcd"), hls_palette(K), tuple((i, i) for i in range(K)))
MEAN = (120.0, 110.0, 100.0)
COLOURS = np.random.default_rng(0).normal(0, 0.05, (3, K)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(0, 0.02, (5, 5, 3, K)).astype(np.float32)


class Pointwise(nnx.Module):
    """A 1 x 1 convolution."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jnp.asarray(COLOURS))

    def __call__(self, x: jax.Array, image: jax.Array | None = None) -> tuple[Scores]:
        return (Scores((x - 110) @ self.kernel[...], Resize("half_pixel")),)


class Strided(nnx.Module):
    """Looks at 5 x 5 pixels, at every fourth."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(jnp.asarray(KERNEL))

    def __call__(self, x: jax.Array, image: jax.Array | None = None) -> tuple[Scores]:
        values = jax.lax.conv_general_dilated(
            x - 110,
            self.kernel[...],
            (4, 4),
            ((2, 2), (2, 2)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return (Scores(jnp.tanh(values) * 4, Resize("corners")),)


@functools.cache
def network(kind: type[nnx.Module]) -> Network:
    """It sees RGB of 0 to 255."""

    def build(rngs):
        return kind(rngs=rngs)

    model = Model(
        options={}, dtype="float32", num_classes=K, classes=SPEC,
        preprocess=Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), bgr=False),
        input_scale=1.0, input_size=(0, 0), seed=0, graphs=functional.graphs(build),
    )  # fmt: skip
    return Network(*functional.initial_arrays(build, 0), model)


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


def multiview(kind, text: str, *, devices: int = 1, batch_size: int = 3, **more) -> MultiView:
    """Views of a network."""
    return MultiView(
        network(kind).model, steps.Judge(metrics.build(SPEC)), views.parse(text), mean=MEAN,
        batch_size=batch_size, devices=jax.devices()[:devices], **more,
    )  # fmt: skip


def run(kind, text: str, batch, **options):
    """(fused scores, what is found)."""
    look = multiview(kind, text, **options)
    placed = look.placed(network(kind))
    return look.scores(placed, batch), look(placed, batch)


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
    scores, found = run(Pointwise, text, batch)
    np.testing.assert_allclose(scores, expected, atol=2e-6)
    np.testing.assert_array_equal(found["prediction"], expected.argmax(-1))


@pytest.mark.parametrize("fusion", ["mean_probability", "mean_logit", "max_probability"])
@pytest.mark.parametrize("tile", [(0, 0), (40, 24)])
def test_flips_leave_a_constant_image_alone(fusion, tile):
    batch = batch_of(np.full((37, 50, 3), 90, np.uint8))
    text = f"single, tile={tile}, fusion={fusion!r}"
    once, _ = run(Pointwise, text, batch)
    twice, _ = run(Pointwise, text + ", flip=True", batch)
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
            scores = network(Strided)(jnp.asarray(seen[None]))
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
    scores, _ = run(Strided, text, batch_of(image))
    at_input = order == "before_resize"
    expected = fuse(whole_views(image, (0.75, 1.0, 1.5), True, at_input))
    np.testing.assert_allclose(scores[0], expected, atol=2e-5 * np.abs(expected).max())


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
        expected, whole = run(Strided, text, batch, batch_size=64)
        for options in others:
            scores, found = run(Strided, text, batch, **options)
            np.testing.assert_allclose(scores, expected, atol=3e-6 * np.abs(expected).max())
            confusion = found["counts"]["mean_iou"]["confusion"]
            assert (confusion.sum((1, 2)) == size[0] * size[1]).all()
            loss, expected_loss = (x["counts"]["cross_entropy"] for x in (found, whole))
            assert loss["pixels"] == expected_loss["pixels"]
            assert loss["loss"] == pytest.approx(expected_loss["loss"], rel=1e-5)


def test_counts_are_those_of_the_predictions_and_rows_without_weight_are_left_out():
    batch = batch_of(noise(45, 62), 3)
    batch["weight"][1] = 0
    batch["label"][0, :9] = 255
    scores, found = run(Strided, "single, flip=True", batch)
    counts = found["counts"]
    for row in range(3):
        expected = np.zeros((K, K), int)
        if row != 1:
            valid = batch["label"][row] < K
            np.add.at(expected, (batch["label"][row][valid], found["prediction"][row][valid]), 1)
        np.testing.assert_array_equal(counts["mean_iou"]["confusion"][row], expected)
    kept = (batch["label"] < K) & (batch["weight"] > 0)[:, None, None]
    truth = np.where(kept, batch["label"], 0)
    chance = np.take_along_axis(scores, truth[..., None].astype(int), -1)[..., 0]
    loss, calibration = counts["cross_entropy"], counts["calibration"]
    assert loss["loss"] == pytest.approx(-np.log(chance[kept]).sum(), rel=1e-5)
    assert loss["pixels"] == kept.sum()
    assert calibration["pixels"].sum() == kept.sum()
    sure = scores.max(-1)[kept]
    assert calibration["confidence"].sum() == pytest.approx(sure.sum(), rel=1e-5)


def test_labels_at_the_size_of_the_input_come_from_the_nearest_pixel():
    image = noise(30, 44)
    _, found = run(Pointwise, "single, long_side=22, argmax='input'", batch_of(image))
    assert found["prediction"].shape == (1, 15, 22)
    small = cv2.resize(image.astype(np.float32), (22, 15), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(found["prediction"][0], ((small - 110) @ COLOURS).argmax(-1))


def test_images_of_many_sizes_share_programs():
    look = multiview(Strided, "pspnet_ms_flip, tile=(33, 33), long_side=64", batch_size=4)
    placed = look.placed(network(Strided))
    for height, width in ((37, 50), (40, 53), (50, 33), (61, 64), (20, 60)):
        look(placed, batch_of(noise(height, width)))
    assert len(look.programs) <= 6


def test_one_look_by_views_is_the_evaluation_step():
    scene = made.on_scenes(tiny.short_config(eval__limit=6, eval__batch_size=4), devices=2)
    evaluator, model = scene.evaluator(), scene.training.model
    labeller, source = evaluator.labeller, scene.split.source
    (_, batch, out), *_ = labeller.batches(scene.network, source, evaluator.plan)
    look = MultiView(
        model, steps.Judge(evaluator.metrics), views.Views(), mean=(0.0, 0.0, 0.0), batch_size=4,
        devices=jax.devices()[:2],
    )  # fmt: skip
    found = look(look.placed(scene.network), batch)
    assert (found["prediction"] == np.asarray(out["prediction"])).mean() > 0.999
    expected, counts = (x["counts"]["cross_entropy"] for x in (out, found))
    assert counts["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)
    assert counts["pixels"] == int(expected["pixels"])
    got, wanted = (x["counts"]["calibration"] for x in (found, out))
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, atol=3)

import numpy as np
import pytest

from segjax.errors import InputError
from segjax.models import importers
from tests.models.importers import foreign

NAMES = [f"conv{stage + 1}_{block + 1}" for stage, block, *_ in foreign.CONVOLUTIONS]
DENSE = ("fc6", "fc7", "fc8")
STYLES = {
    "weight": ("{}.weight", "{}/0", "{}.0", "{}_W"),
    "bias": ("{}.bias", "{}/1", "{}.1", "{}_b"),
}
RELEASE = {"border": "caffe"}


def drawn(layer: str, inputs: int, outputs: int, size: int = 0) -> dict[str, np.ndarray]:
    """A random layer; with `size` 0 it is dense."""
    rng = np.random.default_rng(sum(map(ord, layer)))
    shape = (outputs, inputs, size, size) if size else (outputs, inputs)
    return {
        f"{layer}.weight": foreign.normals(rng, shape, inputs * max(1, size) ** 2),
        f"{layer}.bias": rng.normal(0, 0.5, outputs).astype(np.float32),
    }


def make() -> dict[str, np.ndarray]:
    """VGG-16 with dense last layers."""
    arrays = {}
    for name, (*_, inputs, outputs) in zip(NAMES, foreign.CONVOLUTIONS, strict=True):
        arrays |= drawn(name, inputs, outputs, 3)
    for name, (inputs, outputs) in zip(DENSE, foreign.DENSE, strict=True):
        arrays |= drawn(name, inputs, outputs)
    return arrays


def bilinear(size: int, classes: int = foreign.K) -> np.ndarray:
    """The filler of the release: [K, K, k, k], a triangle on the diagonal, in float32."""
    factor = (size + 1) // 2
    ramp = 1 - np.abs(np.arange(size) - (factor - 0.5)) / factor
    weight = np.zeros((classes, classes, size, size), np.float32)
    weight[range(classes), range(classes)] = ramp[:, None] * ramp
    return weight


def release(*, skips: tuple[str, ...] = ("score_pool4", "score_pool3")) -> dict[str, np.ndarray]:
    """An FCN of convolutions and upsamplings."""
    arrays = {name: a for name, a in make().items() if not name.startswith("fc")}
    arrays |= drawn("fc6", foreign.WIDTHS[4], foreign.FC, 7) | drawn(
        "fc7", foreign.FC, foreign.FC, 1
    )
    arrays |= drawn("score_fr", foreign.FC, foreign.K, 1)
    for name in skips:
        stage = int(name[-1]) - 1
        arrays |= drawn(name, foreign.WIDTHS[stage], foreign.K, 1)
    sizes = {
        0: {"upscore": 64},
        1: {"upscore2": 4, "upscore16": 32},
        2: {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    }[len(skips)]
    return arrays | {f"{name}.weight": bilinear(size) for name, size in sizes.items()}


def theirs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """fc7 and scores as Caffe computes them."""

    def convolution(layer, x):
        weight, bias = (arrays[f"{NAMES[layer]}.{kind}"] for kind in ("weight", "bias"))
        return foreign.convolve(x, weight, foreign.CHW) + bias[:, None, None]

    def dense(layer, x):
        weight, bias = (arrays[f"{DENSE[layer]}.{kind}"] for kind in ("weight", "bias"))
        return weight.astype(np.float64) @ x + bias

    return foreign.classify(foreign.CHW, convolution, dense)


def test_vgg16_gives_the_scores_of_caffe():
    arrays = make()
    assert importers.origin_of(arrays, "f") == "caffe_vgg16"
    foreign.assert_equal(foreign.ours(foreign.load(arrays)), theirs(arrays))


def convolutions(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """fc6, fc7 and fc8 as convolutions."""
    sizes = {"fc6.weight": 7, "fc7.weight": 1, "fc8.weight": 1}
    return arrays | {
        name: arrays[name].reshape(arrays[name].shape[0], -1, size, size)
        for name, size in sizes.items()
    }


def with_four_axes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The blobs of files from before 2014's change of format."""
    return {name: a.reshape((1,) * (4 - a.ndim) + a.shape) for name, a in arrays.items()}


@pytest.mark.parametrize("form", [convolutions, with_four_axes])
def test_dense_layers_may_be_convolutions_or_have_four_axes(form):
    arrays = make()
    found, expected = foreign.load(form(arrays)), foreign.load(arrays)
    assert found.arrays.keys() == expected.arrays.keys()
    for path, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)


@pytest.mark.parametrize("style", range(4))
def test_the_names_of_every_converter_are_read(style):
    arrays = release()
    file = {}
    for name, array in arrays.items():
        layer, _, kind = name.rpartition(".")
        file[STYLES[kind][style].format(layer)] = array
    assert importers.origin_of(file, "f") == "caffe_fcn"
    found = foreign.load(file, head="fcn8s", **RELEASE)
    assert len(found.arrays) == len(arrays) - 3
    np.testing.assert_array_equal(
        found.arrays["head/score_pool3/kernel"][0, 0], arrays["score_pool3.weight"][:, :, 0, 0].T
    )


@pytest.mark.parametrize(
    ("head", "skips"),
    [("fcn32s", ()), ("fcn16s", ("score_pool4",)), ("fcn8s", ("score_pool4", "score_pool3"))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fixed_bilinear_upsamplings_are_recognised_and_not_used(head, skips, dtype):
    arrays = {name: array.astype(dtype) for name, array in release(skips=skips).items()}
    found = foreign.load(arrays, head=head, **RELEASE)
    upsamplings = {name for name in arrays if name.startswith("upscore")}
    assert found.unused == dict.fromkeys(upsamplings, "bilinear, as ours")
    assert len(upsamplings) == len(skips) + 1


def learned(size: int) -> np.ndarray:
    weight = bilinear(size)
    weight[weight != 0] += np.random.default_rng(0).normal(0, 0.1, (weight != 0).sum())
    return weight


def test_a_learned_upsampling_does_not_pass_as_a_fixed_one():
    file = release() | {"upscore2.weight": learned(4)}
    with pytest.raises(InputError, match=r"1 extra: upscore2\.weight\. "):
        foreign.load(file, head="fcn8s", **RELEASE)


def test_an_upsampling_that_mixes_classes_is_refused():
    mixing = bilinear(4)
    mixing[0, 1] = mixing[0, 0]
    file = release() | {"upscore2.weight": mixing}
    with pytest.raises(InputError, match="1 extra: upscore2.weight"):
        foreign.load(file, head="fcn8s", **RELEASE)


@pytest.mark.parametrize("grouped", [False, True])
def test_learned_upsamplings_are_loaded_class_by_class(grouped):
    weight = learned(4)
    each = weight[range(foreign.K), range(foreign.K)]
    file = release() | {"upscore2.weight": each[:, None] if grouped else weight}
    wanted = dict(foreign.shapes(head="fcn8s", **RELEASE))
    wanted |= dict.fromkeys(("head/up_top/kernel", "head/up_pool4/kernel"), (4, 4, 1, foreign.K))
    found, unused = importers.ORIGINS["caffe_fcn"].convert(file, wanted)
    match = importers.match(found, wanted, (), where="f", unused=unused)
    assert match.unused.keys() == {"upscore8.weight"}
    np.testing.assert_array_equal(
        match.arrays["head/up_top/kernel"][:, :, 0], each.transpose(1, 2, 0)
    )
    kernel = match.arrays["head/up_pool4/kernel"][:, :, 0]
    np.testing.assert_array_equal(kernel[..., 0], bilinear(4)[0, 0])


def test_the_factors_of_fcn8s_at_once_say_that_the_head_applies_them():
    factors = {"scale_pool4.weight": np.array([0.01]), "scale_pool3.weight": np.array([1e-4])}
    file = release() | factors
    assert factors.keys() <= foreign.load(file, head="fcn8s", **RELEASE).unused.keys()
    for arrays, at_once in ((file, True), (release(), False)):
        made = importers.ORIGINS["caffe_fcn"].network(arrays, {})
        assert made.model["head"] == {"name": "fcn8s", "upsampling": "fixed", "at_once": at_once}
        assert ("head.at_once" in made.free) == (not at_once)  # pytorch-fcn's files do not tell
    other = file | {"scale_pool4.weight": np.array([0.5])}
    with pytest.raises(InputError, match=r"1 extra: scale_pool4\.weight\. "):
        foreign.load(other, head="fcn8s", **RELEASE)


def test_images_are_blue_green_red():
    fcn, vgg = (importers.ORIGINS[name].preprocess for name in ("caffe_fcn", "caffe_vgg16"))
    assert fcn == {"mean": (122.67892, 116.66877, 104.00699), "std": (1, 1, 1), "bgr": True}
    assert vgg == {"mean": (123.68, 116.779, 103.939), "std": (1, 1, 1), "bgr": True}

import numpy as np
import pytest

from segjax.models import importers
from segjax.models.importers import weight_files
from tests.models.importers import network, real

FILE = "mobilenet_v2_1.0_notop.safetensors"
HEAD = "mobilenet_v2_1.0_head_dequantised.safetensors"
GROUPS = ((8, 1), (8, 2), (8, 3), (16, 4), (24, 3), (40, 3), (80, 1))  # at a quarter of the width
TOP, STEM = 32, 8
KINDS = ("gamma", "beta", "moving_mean", "moving_variance")


def convolution(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/kernel": shape}


def norm(name: str, features: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/{kind}": (features,) for kind in KINDS}


def mobilenet(head: str = "predictions") -> dict[str, np.ndarray]:
    """A narrow network as layer/kind -> array."""
    found = convolution("Conv1", 3, 3, 3, STEM) | norm("bn_Conv1", STEM)
    features, number = STEM, 0
    for channels, count in GROUPS:
        for _ in range(count):
            name, inner = f"block_{number}" if number else "expanded_conv", features
            if number:
                inner = 6 * features
                found |= convolution(f"{name}_expand", 1, 1, features, inner)
                found |= norm(f"{name}_expand_BN", inner)
            found[f"{name}_depthwise/depthwise_kernel"] = (3, 3, inner, 1)
            found |= norm(f"{name}_depthwise_BN", inner)
            found |= convolution(f"{name}_project", 1, 1, inner, channels)
            found |= norm(f"{name}_project_BN", channels)
            features, number = channels, number + 1
    found |= convolution("Conv_1", 1, 1, features, TOP) | norm("Conv_1_bn", TOP)
    return network.draw(found | {f"{head}/kernel": (TOP, network.K), f"{head}/bias": (network.K,)})


def model(top: int = TOP, width: float = 0.25, classes: int = network.K, **options) -> dict:
    keras = {"name": "batch", "epsilon": 1e-3}
    backbone = {"name": "mobilenet_v2", "norm": keras, "width": width, "top": top}
    return network.options(backbone | options, {"name": "classifier"}, classes=classes)


def keras3(layer: str, kind: str) -> str:
    kinds = KINDS if kind in KINDS else ("depthwise_kernel" if "depth" in kind else "kernel",)
    kinds = (*kinds, "bias") if kind == "bias" else kinds
    return f"layers/{layer}/vars/{kinds.index(kind)}"


AGES = {
    "release": lambda layer, kind: f"{layer}/{layer}/{kind}:0",
    "whole": lambda layer, kind: f"model_weights/{layer}/{layer}/{kind}",
    "inside": lambda layer, kind: f"model_weights/mobilenetv2_1.00_224/{layer}/{kind}:0",
    "keras3": keras3,
}


def test_every_tensor_is_placed():
    arrays = mobilenet()
    assert importers.origin_of(arrays, "f") == "keras_mobilenet_v2"
    found = network.load(arrays, model())
    assert len(found.arrays) == len(arrays) == 52 + 4 * 52 + 2
    assert not found.kept + found.left + list(found.unused)


def test_each_tensor_is_placed_by_its_name():
    arrays = mobilenet()
    found = network.load(arrays, model())
    for theirs, ours in (
        ("Conv1", "backbone/stem/conv"),
        ("expanded_conv_project", "backbone/blocks/0/project/conv"),
        ("block_1_expand", "backbone/blocks/1/expand/conv"),
        ("block_16_project", "backbone/blocks/16/project/conv"),
        ("Conv_1", "backbone/top/conv"),
    ):
        network.assert_placed(found, f"{ours}/kernel", arrays[f"{theirs}/kernel"])
    for number in (0, 7):
        name = f"block_{number}" if number else "expanded_conv"
        kernel = arrays[f"{name}_depthwise/depthwise_kernel"][..., 0]
        block = f"backbone/blocks/{number}"
        network.assert_placed(found, f"{block}/depthwise/kernel", kernel[:, :, None])
        for ours, kind in zip(("scale", "bias", "mean", "var"), KINDS, strict=True):
            network.assert_placed(
                found, f"{block}/norm/{ours}", arrays[f"{name}_depthwise_BN/{kind}"]
            )
    network.assert_placed(found, "backbone/stem/norm/var", arrays["bn_Conv1/moving_variance"])
    network.assert_placed(found, "backbone/top/norm/mean", arrays["Conv_1_bn/moving_mean"])
    kernel = arrays["predictions/kernel"][None, None]
    network.assert_placed(found, "head/classifier/kernel", kernel)


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("head", ["Logits", "predictions", "head"])
def test_files_of_every_keras_give_the_same_arrays(age, head):
    arrays = mobilenet(head)
    file = {AGES[age](*name.split("/")): array for name, array in arrays.items()}
    assert importers.origin_of(file, "f") == "keras_mobilenet_v2"
    found, expected = network.load(file, model()), network.load(mobilenet(), model())
    assert found.arrays.keys() == expected.arrays.keys()
    for path, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = mobilenet()
    del arrays["block_3_depthwise_BN/gamma"]
    arrays["block_17_expand/kernel"] = arrays["block_1_pad/kernel"] = np.zeros((1, 1, 1, 1))
    arrays["block_2_depthwise/depthwise_kernel"] = np.zeros((3, 3, 8, 1))
    assert network.refusal(arrays, model()) == (
        "1 missing: backbone/blocks/3/norm/scale; "
        "2 extra: backbone/blocks/17/expand/conv/kernel, block_1_pad/kernel; "
        "1 misshapen: backbone/blocks/2/depthwise/kernel [3, 3, 1, 8] for [3, 3, 1, 48]"
    )


def test_a_network_without_the_last_convolution_skips_it():
    arrays = mobilenet()
    assert network.refusal(arrays, model(0), "head/*").startswith("5 extra: backbone/top/conv/")
    found = network.load(arrays, model(0, output_stride=16), "head/*", "backbone/top/*")
    assert len(found.left) == 5 + 2
    assert len(found.kept) == 2


def test_images_are_normalised_to_minus_one_to_one():
    preprocess = importers.ORIGINS["keras_mobilenet_v2"].preprocess
    assert preprocess == {"mean": (127.5,) * 3, "std": (127.5,) * 3, "bgr": False}


PHOTOGRAPHS = {  # top class and its probability, from the README of the weights
    "coffee": ("espresso", 0.90),
    "chelsea": ("tiger cat", 0.41),
    "rocket": ("missile", 0.46),
}


@pytest.fixture(scope="module")
def chances() -> dict[str, np.ndarray]:
    """Photograph -> probabilities of classes by the two files."""
    images = real.photographs(PHOTOGRAPHS)
    arrays = weight_files.read(real.FOLDER / FILE)[0] | weight_files.read(real.FOLDER / HEAD)[0]
    full = model(1280, 1.0, 1000)
    # The classifier is linear: the mean of its map is the score of the mean.
    maps = network.scores(arrays, full, "keras_mobilenet_v2", images, upsample=False)
    scores = maps.mean((1, 2), dtype=np.float64)
    chances = np.exp(scores - scores.max(1, keepdims=True))
    return dict(zip(PHOTOGRAPHS, chances / chances.sum(1, keepdims=True), strict=True))


@real.needs(FILE)
@real.needs(HEAD)
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_the_release_classifies_photographs_as_in_its_readme(chances, photograph):
    name, probability = PHOTOGRAPHS[photograph]
    assert real.imagenet_classes()[chances[photograph].argmax()] == name
    assert chances[photograph].max() == pytest.approx(probability, abs=0.01)

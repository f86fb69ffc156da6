import json

import numpy as np
import pytest

from segjax.errors import InputError
from segjax.models import importers
from tests.models.importers import foreign

NAMES = [f"block{stage + 1}_conv{block + 1}" for stage, block, *_ in foreign.CONVOLUTIONS]
DENSE = ("fc1", "fc2", "predictions")


def make() -> dict[str, np.ndarray]:
    """The narrow network as layer/kind -> array."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (*_, inputs, outputs) in zip(NAMES, foreign.CONVOLUTIONS, strict=True):
        arrays[f"{name}/kernel"] = foreign.normals(rng, (3, 3, inputs, outputs), 9 * inputs)
        arrays[f"{name}/bias"] = rng.normal(0, 0.5, outputs).astype(np.float32)
    for name, (inputs, outputs) in zip(DENSE, foreign.DENSE, strict=True):
        arrays[f"{name}/kernel"] = foreign.normals(rng, (inputs, outputs), inputs)
        arrays[f"{name}/bias"] = rng.normal(0, 0.5, outputs).astype(np.float32)
    return arrays


def theirs(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """fc7 and scores as Keras computes them."""

    def convolution(layer, x):
        kernel, bias = (arrays[f"{NAMES[layer]}/{kind}"] for kind in ("kernel", "bias"))
        return foreign.convolve(x, kernel, foreign.HWC) + bias

    def dense(layer, x):
        return x @ arrays[f"{DENSE[layer]}/kernel"] + arrays[f"{DENSE[layer]}/bias"]

    return foreign.classify(foreign.HWC, convolution, dense)


def release(layer: str, kind: str) -> str:
    return f"{layer}/{layer}_{'W' if kind == 'kernel' else 'b'}_1:0"


AGES = {
    "release": release,
    "flat": lambda layer, kind: f"{layer}/{kind}",
    "tf1": lambda layer, kind: f"{layer}/{layer}_1/{kind}:0",
    "nested": lambda layer, kind: f"{layer}/{layer}/{kind}:0",
    "whole": lambda layer, kind: f"model_weights/{layer}/{layer}/{kind}",
    "inside": lambda layer, kind: f"model_weights/vgg16/{layer}/{kind}:0",
    "keras3": lambda layer, kind: f"layers/{layer}/vars/{'01'[kind == 'bias']}",
    "keras3_inside": lambda layer, kind: (
        f"layers/functional/layers/{layer}/vars/{'01'[kind == 'bias']}"
    ),
}


def renamed(arrays: dict[str, np.ndarray], age: str) -> dict[str, np.ndarray]:
    return {AGES[age](*name.split("/")): array for name, array in arrays.items()}


def test_vgg16_gives_the_scores_of_keras():
    arrays = make()
    found = foreign.load(arrays)
    assert len(found.arrays) == 32
    foreign.assert_equal(foreign.ours(found), theirs(arrays))


@pytest.mark.parametrize("age", AGES)
def test_files_of_every_keras_give_the_same_arrays(age):
    arrays = make()
    file = renamed(arrays, age)
    assert importers.origin_of(file, "f") == "keras_vgg16"
    found, expected = foreign.load(file), foreign.load(arrays)
    assert found.arrays.keys() == expected.arrays.keys()
    for path, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)


def test_layers_named_by_their_order_are_read_if_the_origin_is_named():
    arrays = make()
    file = {}
    for kind, names in (("conv2d", NAMES), ("dense", DENSE)):
        for i, name in enumerate(names):
            group = f"layers/{kind}_{i}" if i else f"layers/{kind}"
            file[f"{group}/vars/0"] = arrays[f"{name}/kernel"]
            file[f"{group}/vars/1"] = arrays[f"{name}/bias"]
    file = dict(sorted(file.items()))  # conv2d_10 before conv2d_2
    with pytest.raises(InputError, match="no known origin"):
        importers.origin_of(file, "f")
    found, expected = foreign.load(file, origin="keras_vgg16"), foreign.load(arrays)
    for path, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[path], array)


def test_tensors_of_the_optimizer_are_reported_and_not_used():
    arrays = renamed(make(), "whole")
    momentum = "optimizer_weights/Adam/m/block1_conv1/kernel:0"
    found = foreign.load({momentum: np.zeros((3, 3, 3, 4), np.float32)} | arrays)
    assert found.unused == {momentum: "of the optimizer"}
    assert found.arrays["backbone/stage1/0/conv/kernel"].any()


def test_two_tensors_for_one_place_are_refused():
    arrays = make()
    twice = arrays | renamed(arrays, "whole")
    with pytest.raises(InputError, match="32 extra: model_weights/block1_conv1/"):
        foreign.load(twice)


def test_a_first_dense_layer_for_another_map_is_misshapen():
    arrays = make()
    arrays["fc1/kernel"] = np.zeros((32, foreign.FC), np.float32)
    message = r"1 misshapen: backbone/fc6/kernel \[32, 8\] for \[7, 7, 32, 8\]"
    with pytest.raises(InputError, match=message):
        foreign.load(arrays)


def test_images_are_normalised_as_for_caffe():
    preprocess = importers.ORIGINS["keras_vgg16"].preprocess
    assert json.loads(json.dumps(preprocess)) == {
        "mean": [123.68, 116.779, 103.939],
        "std": [1.0, 1.0, 1.0],
        "bgr": True,
    }

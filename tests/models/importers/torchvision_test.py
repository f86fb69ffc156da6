import numpy as np
import pytest

from segjax.errors import InputError
from segjax.models import importers
from tests.models.importers import foreign

# Numbers of the convolutions in `features`, from the table of torchvision's files.
PLAIN = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
NORMED = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
CLASSIFIER = (0, 3, 6)
BN = {"batch_norm": True, "fc_batch_norm": False}


def make(*, batch_norm: bool, order: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """A state dict of the narrow network."""
    rng = np.random.default_rng(0)
    arrays = {}
    for number, (*_, inputs, outputs) in zip(
        order or (NORMED if batch_norm else PLAIN), foreign.CONVOLUTIONS, strict=True
    ):
        name = f"features.{number}"
        arrays[f"{name}.weight"] = foreign.normals(rng, (outputs, inputs, 3, 3), 9 * inputs)
        arrays[f"{name}.bias"] = rng.normal(0, 0.5, outputs).astype(np.float32)
        if batch_norm:
            name = f"features.{number + 1}"
            arrays[f"{name}.weight"] = rng.uniform(0.5, 1.5, outputs).astype(np.float32)
            arrays[f"{name}.bias"] = rng.normal(0, 0.5, outputs).astype(np.float32)
            arrays[f"{name}.running_mean"] = rng.normal(0, 0.5, outputs).astype(np.float32)
            arrays[f"{name}.running_var"] = rng.uniform(0.5, 2, outputs).astype(np.float32)
            arrays[f"{name}.num_batches_tracked"] = np.array(3)
    for number, (inputs, outputs) in zip(CLASSIFIER, foreign.DENSE, strict=True):
        name = f"classifier.{number}"
        arrays[f"{name}.weight"] = foreign.normals(rng, (outputs, inputs), inputs)
        arrays[f"{name}.bias"] = rng.normal(0, 0.5, outputs).astype(np.float32)
    return arrays


def theirs(arrays: dict[str, np.ndarray], *, batch_norm: bool) -> tuple[np.ndarray, np.ndarray]:
    """fc7 and scores as torchvision computes them."""
    numbers = NORMED if batch_norm else PLAIN

    def convolution(layer, x):
        name = f"features.{numbers[layer]}"
        x = foreign.convolve(x, arrays[f"{name}.weight"], foreign.CHW)
        x = x + arrays[f"{name}.bias"][:, None, None]
        if not batch_norm:
            return x
        weight, bias, mean, var = (
            arrays[f"features.{numbers[layer] + 1}.{kind}"].astype(np.float64)[:, None, None]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    def dense(layer, x):
        name = f"classifier.{CLASSIFIER[layer]}"
        return arrays[f"{name}.weight"].astype(np.float64) @ x + arrays[f"{name}.bias"]

    return foreign.classify(foreign.CHW, convolution, dense)


def test_vgg16_gives_the_scores_of_torchvision():
    arrays = make(batch_norm=False)
    assert len(arrays) == 32
    found = foreign.load(arrays)
    assert found.unused == {}
    assert sum(a.size for a in found.arrays.values()) == sum(a.size for a in arrays.values())
    foreign.assert_equal(foreign.ours(found), theirs(arrays, batch_norm=False))


def test_vgg16_bn_gives_the_scores_of_torchvision_with_the_biases_in_the_means():
    arrays = make(batch_norm=True)
    assert len(arrays) == 97
    before = {name: array.copy() for name, array in arrays.items()}
    found = foreign.load(arrays, **BN)
    biases = {f"features.{number}.bias" for number in NORMED}
    counters = {f"features.{number + 1}.num_batches_tracked" for number in NORMED}
    assert found.unused.keys() == biases | counters
    foreign.assert_equal(foreign.ours(found, **BN), theirs(arrays, batch_norm=True))
    for name, array in before.items():  # the file's arrays are left alone
        np.testing.assert_array_equal(arrays[name], array)


def test_biases_are_subtracted_from_half_precision_means_in_float32():
    arrays = make(batch_norm=True)
    half = {name: a.astype(np.float16) if a.ndim == 1 else a for name, a in arrays.items()}
    got = foreign.load(half, **BN).arrays["backbone/stage1/0/norm/mean"]
    mean, bias = half["features.1.running_mean"], half["features.0.bias"]
    np.testing.assert_array_equal(got, mean.astype(np.float32) - bias.astype(np.float32))


def test_the_origin_is_recognised_by_the_tensors():
    for batch_norm, origin in ((False, "torchvision_vgg16"), (True, "torchvision_vgg16_bn")):
        assert importers.origin_of(make(batch_norm=batch_norm), "f") == origin
    assert importers.ORIGINS["torchvision_vgg16_bn"].preprocess == {
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "bgr": False,
    }


def test_weights_without_a_classifier_have_the_normalisation_of_caffe():
    arrays = make(batch_norm=False)
    for name in arrays:
        if name.startswith("classifier"):
            arrays[name] = np.full_like(arrays[name], np.nan)
    assert importers.origin_of(arrays, "f") == "torchvision_vgg16_features"
    preprocess = importers.ORIGINS["torchvision_vgg16_features"].preprocess
    assert preprocess == {"mean": (123, 117, 104), "std": (1, 1, 1), "bgr": False}
    with pytest.raises(InputError, match="6 not finite: backbone/fc6/bias, "):
        foreign.load(arrays)
    found = foreign.load(arrays, skip=("backbone/fc?/*", "head/*"))
    assert len(found.arrays) == 26


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_deeper_vgg19_is_refused(batch_norm):
    arrays = make(batch_norm=batch_norm)
    step, more = (3, 0) if batch_norm else (2, 0)
    depths, index, renamed = (2, 2, 4, 4, 4), 0, {}
    originals = iter(NORMED if batch_norm else PLAIN)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            original = next(originals) if block < foreign.DEPTHS[stage] else more
            for name, array in arrays.items():
                for k in (0, 1):
                    if name.startswith(f"features.{original + k}."):
                        renamed[f"features.{index + k}.{name.rpartition('.')[2]}"] = array
            index += step
            more = original
        index += 1
    renamed |= {name: array for name, array in arrays.items() if name.startswith("classifier")}
    with pytest.raises(InputError, match=r"missing: .*extra: features\.\d+\.weight") as told:
        foreign.load(renamed, **(BN if batch_norm else {}))
    assert "\n" not in str(told.value)


def test_a_classifier_for_another_map_is_misshapen():
    arrays = make(batch_norm=False)
    arrays["classifier.0.weight"] = np.zeros((foreign.FC, 32), np.float32)
    message = r"1 misshapen: backbone/fc6/kernel \[8, 32\] for \[7, 7, 32, 8\]"
    with pytest.raises(InputError, match=message):
        foreign.load(arrays)

import numpy as np
import pytest

from segjax.models import importers
from tests.models.importers import network
from tests.models.importers.torchvision_resnet_test import convolution, norm

WIDTH = 4
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
PLACES = {
    "base.layer1.conv1": "backbone/stem/0",
    "base.layer2.block1.shortcut": "backbone/stage2/0/shortcut",
    "base.layer3.block4.reduce": "backbone/stage3/3/blocks/0",
    "base.layer4.block5.conv3x3": "backbone/stage4/4/blocks/1",
    "base.layer5.block3.increase": "backbone/stage5/2/blocks/2",
}


def block(name: str, inputs: int, outputs: int, size: int) -> dict[str, tuple[int, ...]]:
    return convolution(f"{name}.conv", inputs, outputs, size) | norm(f"{name}.bn", outputs)


def deeplab(depth: int, prefix: str = "base.", head: str = "aspp") -> dict[str, np.ndarray]:
    """A state dict of DeepLab v2; the wrapper for several scales adds the `prefix`."""
    found, inputs = block("layer1.conv1", 3, WIDTH, 7), WIDTH
    for stage, count in enumerate(DEPTHS[depth], 2):
        inner = WIDTH * 2 ** (stage - 2)
        for i in range(1, count + 1):
            name = f"layer{stage}.block{i}"
            found |= block(f"{name}.reduce", inputs, inner, 1)
            found |= block(f"{name}.conv3x3", inner, inner, 3)
            found |= block(f"{name}.increase", inner, 4 * inner, 1)
            if i == 1:
                found |= block(f"{name}.shortcut", inputs, 4 * inner, 1)
            inputs = 4 * inner
    for name in [f"aspp.c{i}" for i in range(4)] if head == "aspp" else ["fc"]:
        found |= convolution(name, inputs, network.K, 3 if head == "aspp" else 1)
        found[f"{name}.bias"] = (network.K,)
    return network.draw({f"{prefix}{name}": shape for name, shape in found.items()})


def model(depth: int, head: str = "deeplab_v2", **more) -> dict:
    backbone = {"name": "resnet", "depth": depth, "width": WIDTH, "norm": network.FROZEN}
    backbone |= {"stride_in": "1x1", "output_stride": 8, "pool_rounding": "ceil"}
    return network.options(backbone, {"name": head}, **more)


SCALES = {"multi_scale": {"scales": (1.0, 0.75, 0.5), "align": "half_pixel"}}


@pytest.mark.parametrize("prefix", ["base.", ""])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_tensor_is_placed(depth, prefix):
    arrays = deeplab(depth, prefix)
    assert importers.origin_of(arrays, "f") == "deeplab_pytorch"
    found = network.load(arrays, model(depth, **SCALES))
    counters = {name for name in arrays if name.endswith("num_batches_tracked")}
    assert found.unused == dict.fromkeys(counters, "a counter")
    assert len(found.arrays) == len(arrays) - len(counters)


def test_each_tensor_is_placed_by_its_name():
    arrays = deeplab(101)
    found = network.load(arrays, model(101))
    for theirs, ours in PLACES.items():
        kernel = arrays[f"{theirs}.conv.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"{ours}/conv/kernel", kernel)
        network.assert_placed(found, f"{ours}/norm/var", arrays[f"{theirs}.bn.running_var"])
        network.assert_placed(found, f"{ours}/norm/bias", arrays[f"{theirs}.bn.bias"])
    for i in range(4):
        kernel = arrays[f"base.aspp.c{i}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"head/branches/{i}/kernel", kernel)
        network.assert_placed(found, f"head/branches/{i}/bias", arrays[f"base.aspp.c{i}.bias"])


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = deeplab(50)
    del arrays["base.layer1.conv1.bn.bias"]
    arrays["base.layer5.block4.reduce.conv.weight"] = np.zeros((1, 1, 1, 1))
    arrays["base.aspp.c0.weight"] = np.zeros((network.K, 32 * WIDTH, 1, 1))
    arrays["base.layer1.pool.size"] = np.zeros(1)
    assert network.refusal(arrays, model(50)) == (
        "1 missing: backbone/stem/0/norm/bias; "
        "2 extra: backbone/stage5/3/blocks/0/conv/kernel, base.layer1.pool.size; "
        "1 misshapen: head/branches/0/kernel [1, 1, 128, 5] for [3, 3, 128, 5]"
    )


def test_the_same_tensor_with_and_without_the_wrapper_is_refused():
    arrays = deeplab(50) | {"aspp.c0.bias": np.zeros(network.K)}
    assert network.refusal(arrays, model(50)) == "1 extra: aspp.c0.bias"


def test_the_classifier_of_v1_and_of_the_resnet_can_be_loaded_or_skipped():
    arrays = deeplab(50, "", "fc")
    kernel = arrays["fc.weight"].transpose(2, 3, 1, 0)
    found = network.load(arrays, model(50, "classifier"))
    network.assert_placed(found, "head/classifier/kernel", kernel)
    found = network.load(arrays, model(50), "head/*")
    assert found.left == ["head/classifier/kernel", "head/classifier/bias"]
    assert len(found.kept) == 8


def test_images_are_blue_green_red():
    preprocess = importers.ORIGINS["deeplab_pytorch"].preprocess
    assert preprocess == {"mean": (122.675, 116.669, 104.008), "std": (1, 1, 1), "bgr": True}

import numpy as np
import pytest

from segjax.models import importers
from tests.models.importers import network, torchvision_resnet_test
from tests.models.importers.torchvision_resnet_test import PREPROCESS, WIDTH, convolution

CHANNELS = {1: 32 * WIDTH, 2: 16 * WIDTH, 3: 8 * WIDTH, 4: 4 * WIDTH}  # group -> its stage's
NARROW = 6  # width of the head
SUFFIXES = ("_conv", "_conv_relu_varout_dimred")
PLACES = {
    "conv1": "backbone/stem/0/conv",
    "layer3.5.conv2": "backbone/stage4/5/blocks/1/conv",
    "p_ims1d2_outl1_dimred": "head/stage5/reduce",
    "p_ims1d2_outl4_dimred": "head/stage2/reduce",
    "adapt_stage1_b.0.2_conv": "head/stage5/before/1/first",
    "adapt_stage2_b.0.1_conv_relu_varout_dimred": "head/stage4/before/0/second",
    "adapt_stage3_b2_joint_varout_dimred": "head/stage3/join",
    "mflow_conv_g1_pool.0.4_outvar_dimred": "head/stage5_refined/chain/convs/3",
    "mflow_conv_g2_pool.0.1_outvar_dimred": "head/stage4_refined/chain/convs/0",
    "mflow_conv_g3_b.0.3_conv": "head/stage3_refined/after/2/first",
    "mflow_conv_g4_b.0.1_conv_relu_varout_dimred": "head/stage2_refined/after/0/second",
    "mflow_conv_g1_b3_joint_varout_dimred": "head/stage5_refined/onward",
    "clf_conv": "head/score",
}


def units(name: str, width: int, count: int) -> dict[str, tuple[int, ...]]:
    """Residual units of two convolutions; the first one has a bias."""
    found = {}
    for i in range(1, count + 1):
        for suffix in SUFFIXES:
            found |= convolution(f"{name}.0.{i}{suffix}", width, width, 3)
        found[f"{name}.0.{i}_conv.bias"] = (width,)
    return found


def refinenet(depth: int) -> dict[str, np.ndarray]:
    """A state dict."""
    found = torchvision_resnet_test.trunk(depth)
    for group, channels in CHANNELS.items():
        width = 2 * NARROW if group == 1 else NARROW
        found |= convolution(f"p_ims1d2_outl{group}_dimred", channels, width, 3)
        found |= units(f"adapt_stage{group}_b", width, 2)
        for i in range(1, 5):
            name = f"mflow_conv_g{group}_pool.0.{i}_outvar_dimred"
            found |= convolution(name, width, width, 3)
        found |= units(f"mflow_conv_g{group}_b", width, 3)
        if group > 1:
            found |= convolution(f"adapt_stage{group}_b2_joint_varout_dimred", width, NARROW, 3)
        if group < 4:
            found |= convolution(f"mflow_conv_g{group}_b3_joint_varout_dimred", width, NARROW, 3)
    found |= convolution("clf_conv", NARROW, network.K, 3) | {"clf_conv.bias": (network.K,)}
    return network.draw(found)


def model(depth: int, **head) -> dict:
    backbone = {"name": "resnet", "depth": depth, "norm": network.FROZEN, "width": WIDTH}
    return network.options(backbone, {"name": "refinenet", "width": NARROW} | head)


@pytest.mark.parametrize("depth", [50, 101])
def test_every_tensor_is_placed(depth):
    arrays = refinenet(depth)
    assert importers.origin_of(arrays, "f") == "drsleep_refinenet"
    found = network.load(arrays, model(depth))
    counters = {name for name in arrays if name.endswith("num_batches_tracked")}
    assert found.unused == dict.fromkeys(counters, "a counter")
    assert len(found.arrays) == len(arrays) - len(counters)


def test_each_tensor_is_placed_by_its_name():
    arrays = refinenet(50)
    found = network.load(arrays, model(50))
    for theirs, ours in PLACES.items():
        kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"{ours}/kernel", kernel)
        if f"{theirs}.bias" in arrays:
            network.assert_placed(found, f"{ours}/bias", arrays[f"{theirs}.bias"])
    network.assert_placed(found, "backbone/stem/0/norm/var", arrays["bn1.running_var"])


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = refinenet(50)
    del arrays["adapt_stage1_b.0.1_conv.bias"]
    arrays["adapt_stage1_b2_joint_varout_dimred.weight"] = np.zeros((1, 1, 3, 3))
    arrays["mflow_conv_g1_b.0.4_conv.weight"] = np.zeros((1, 1, 3, 3))
    arrays["p_ims1d2_outl2_dimred.weight"] = np.zeros((NARROW, CHANNELS[2], 1, 1))
    assert network.refusal(arrays, model(50)) == (
        "1 missing: head/stage5/before/0/first/bias; "
        "2 extra: head/stage5/join/kernel, head/stage5_refined/after/3/first/kernel; "
        "1 misshapen: head/stage4/reduce/kernel [1, 1, 64, 6] for [3, 3, 64, 6]"
    )


def test_the_papers_chains_are_shorter():
    text = network.refusal(refinenet(50), model(50, blocks=2))
    assert text.startswith("8 extra: head/stage5_refined/chain/convs/2/kernel, ")


def test_images_are_normalised_as_for_imagenet():
    assert importers.ORIGINS["drsleep_refinenet"].preprocess == PREPROCESS

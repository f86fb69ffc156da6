import numpy as np
import pytest

from segjax.models import importers
from tests.models.importers import network, torchvision_resnet_test
from tests.models.importers.torchvision_resnet_test import PREPROCESS, WIDTH, conv_head

DEEP = ((3, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * WIDTH))
BINS = (1, 2, 3, 6)


def stem(names: tuple[tuple[str, str], ...]) -> dict[str, tuple[int, ...]]:
    """A deep stem: three convolutions and norms of the given names."""
    found = {}
    for (conv, norm), (inputs, outputs) in zip(names, DEEP, strict=True):
        found |= torchvision_resnet_test.convolution(conv, inputs, outputs, 3)
        found |= torchvision_resnet_test.norm(norm, outputs)
    return found


def pspnet(depth: int) -> dict[str, np.ndarray]:
    """A state dict with the auxiliary head of training."""
    top, width = 32 * WIDTH, 8 * WIDTH
    found = stem((("layer0.0", "layer0.1"), ("layer0.3", "layer0.4"), ("layer0.6", "layer0.7")))
    found |= torchvision_resnet_test.layers(depth, 2 * WIDTH)
    for i in range(len(BINS)):
        found |= torchvision_resnet_test.convolution(f"ppm.features.{i}.1", top, top // 4, 1)
        found |= torchvision_resnet_test.norm(f"ppm.features.{i}.2", top // 4)
    found |= conv_head("cls", 2 * top, width) | conv_head("aux", top // 2, width // 2)
    return network.draw(found)


def resnet(depth: int) -> dict[str, np.ndarray]:
    """A state dict of the classifier on ImageNet."""
    found = stem((("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")))
    found |= torchvision_resnet_test.layers(depth, 2 * WIDTH)
    return network.draw(found | {"fc.weight": (1000, 32 * WIDTH), "fc.bias": (1000,)})


def model(depth: int, aux: bool = True) -> dict:
    """Options of segjax's network for `pspnet`."""
    backbone = {"name": "resnet", "depth": depth, "norm": network.BATCH, "stem": "deep"}
    side = {"name": "conv", "stage": "stage4", "width": 4 * WIDTH, "drop_maps": True}
    return network.options(
        backbone | {"output_stride": 8, "width": WIDTH},
        {"name": "pspnet", "norm": network.BATCH, "bins": BINS, "width": 8 * WIDTH},
        side | {"norm": network.BATCH} if aux else None,
    )


@pytest.mark.parametrize("depth", [50, 101])
def test_every_tensor_of_pspnet_is_placed(depth):
    arrays = pspnet(depth)
    assert importers.origin_of(arrays, "f") == "semseg_pspnet"
    found = network.load(arrays, model(depth))
    counters = {name for name in arrays if name.endswith("num_batches_tracked")}
    assert found.unused == dict.fromkeys(counters, "a counter")
    assert len(found.arrays) == len(arrays) - len(counters)


def test_each_tensor_is_placed_by_its_name():
    arrays = pspnet(50)
    found = network.load(arrays, model(50))
    places = {
        "layer0.0": "backbone/stem/0/conv",
        "layer0.3": "backbone/stem/1/conv",
        "layer0.6": "backbone/stem/2/conv",
        "layer1.0.downsample.0": "backbone/stage2/0/shortcut/conv",
        "layer4.2.conv2": "backbone/stage5/2/blocks/1/conv",
        "cls.0": "head/conv/conv",
        "cls.4": "head/score",
        "aux.0": "aux/conv/conv",
        "aux.4": "aux/score",
    } | {f"ppm.features.{i}.1": f"head/pyramid/reduce/{i}/conv" for i in range(4)}
    for theirs, ours in places.items():
        kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"{ours}/kernel", kernel)
    for theirs, ours in (
        ("layer0.7", "backbone/stem/2/norm"),
        ("ppm.features.2.2", "head/pyramid/reduce/2/norm"),
        ("cls.1", "head/conv/norm"),
        ("aux.1", "aux/conv/norm"),
    ):
        network.assert_placed(found, f"{ours}/mean", arrays[f"{theirs}.running_mean"])
        network.assert_placed(found, f"{ours}/scale", arrays[f"{theirs}.weight"])


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = pspnet(50)
    del arrays["layer0.4.running_mean"], arrays["cls.4.bias"]
    arrays["ppm.features.1.1.weight"] = np.zeros((8, 128, 1, 1))
    arrays["ppm.features.4.1.weight"] = arrays["psa.attention.0.weight"] = np.zeros((1, 1, 1, 1))
    assert network.refusal(arrays, model(50)) == (
        "2 missing: head/score/bias, backbone/stem/1/norm/mean; "
        "2 extra: head/pyramid/reduce/4/conv/kernel, psa.attention.0.weight; "
        "1 misshapen: head/pyramid/reduce/1/conv/kernel [1, 1, 128, 8] for [1, 1, 128, 32]"
    )


def test_an_unused_auxiliary_head_must_be_skipped_by_name():
    assert network.refusal(pspnet(50), model(50, aux=False)).startswith("7 extra: aux/conv/conv/")
    assert len(network.load(pspnet(50), model(50, aux=False), "aux/*").left) == 7


def test_its_resnets_fit_a_pspnet_with_a_deep_stem_except_for_the_heads():
    arrays = resnet(50)
    assert importers.origin_of(arrays, "f") == "semseg_resnet"
    got = network.load(arrays, model(50), "head/*", "aux/*")
    assert got.left == ["head/classifier/kernel", "head/classifier/bias"]
    backbone = [path for path in network.shapes(model(50)) if path.startswith("backbone/")]
    assert got.arrays.keys() == set(backbone)
    for i in (1, 2, 3):
        kernel = arrays[f"conv{i}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(got, f"backbone/stem/{i - 1}/conv/kernel", kernel)
        network.assert_placed(got, f"backbone/stem/{i - 1}/norm/var", arrays[f"bn{i}.running_var"])


def test_images_are_normalised_as_for_imagenet():
    for kind in ("resnet", "pspnet"):
        assert importers.ORIGINS[f"semseg_{kind}"].preprocess == PREPROCESS

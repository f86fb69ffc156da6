import numpy as np
import pytest

from segjax.models import importers
from segjax.models.importers import weight_files
from tests.models.importers import network, real

FILE = "resnet18_stem_to_layer3_bnfolded.safetensors"
WIDTH = 4
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3),
          152: (3, 8, 36, 3)}  # fmt: skip
ENTRIES = {18: 122, 34: 218, 50: 320, 101: 626, 152: 932}  # number in torchvision's state dicts
PREPROCESS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375), "bgr": False}


def convolution(name: str, inputs: int, outputs: int, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, size, size)}


def norm(name: str, features: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (features,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def score(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return convolution(name, inputs, outputs, 1) | {f"{name}.bias": (outputs,)}


def layers(depth: int, inputs: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """Names and shapes of layer1 to layer4; `inputs` are the channels of the stem."""
    found, growth = {}, 1 if depth < 50 else 4
    for stage, count in enumerate(DEPTHS[depth]):
        inner = WIDTH * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            outer = growth * inner
            steps = ((inputs, inner, 3), (inner, inner, 3))
            if growth == 4:
                steps = ((inputs, inner, 1), (inner, inner, 3), (inner, outer, 1))
            for i, step in enumerate(steps, 1):
                found |= convolution(f"{name}.conv{i}", *step) | norm(f"{name}.bn{i}", step[1])
            if inputs != outer:
                found |= convolution(f"{name}.downsample.0", inputs, outer, 1)
                found |= norm(f"{name}.downsample.1", outer)
            inputs = outer
    return found


def trunk(depth: int) -> dict[str, tuple[int, ...]]:
    return convolution("conv1", 3, WIDTH, 7) | norm("bn1", WIDTH) | layers(depth)


def resnet(depth: int) -> dict[str, np.ndarray]:
    """A classifier's state dict."""
    features = 8 * WIDTH * (1 if depth < 50 else 4)
    dense = {"fc.weight": (network.K, features), "fc.bias": (network.K,)}
    return network.draw(trunk(depth) | dense)


def conv_head(name: str, inputs: int, width: int) -> dict[str, tuple[int, ...]]:
    """torchvision's `FCNHead`, which is also semseg's auxiliary head."""
    found = convolution(f"{name}.0", inputs, width, 3) | norm(f"{name}.1", width)
    return found | score(f"{name}.4", width, network.K)


def segmenter(kind: str) -> dict[str, np.ndarray]:
    """fcn_resnet50 or deeplabv3_resnet50 with its auxiliary head."""
    found = {f"backbone.{name}": shape for name, shape in trunk(50).items()}
    if kind == "fcn":
        found |= conv_head("classifier", 32 * WIDTH, 8 * WIDTH)
    else:
        for i, size in enumerate((1, 3, 3, 3)):
            found |= convolution(f"classifier.0.convs.{i}.0", 32 * WIDTH, 16, size)
            found |= norm(f"classifier.0.convs.{i}.1", 16)
        found |= convolution("classifier.0.convs.4.1", 32 * WIDTH, 16, 1)
        found |= norm("classifier.0.convs.4.2", 16)
        found |= convolution("classifier.0.project.0", 5 * 16, 16, 1)
        found |= norm("classifier.0.project.1", 16)
        found |= convolution("classifier.1", 16, 16, 3) | norm("classifier.2", 16)
        found |= score("classifier.4", 16, network.K)
    return network.draw(found | conv_head("aux_classifier", 16 * WIDTH, 4 * WIDTH))


def classifier(depth: int, kind: dict = network.BATCH, **options) -> dict:
    backbone = {"name": "resnet", "depth": depth, "norm": kind, "width": WIDTH}
    return network.options(backbone | options, {"name": "classifier"})


def segmenting(kind: str, aux: bool = True) -> dict:
    """Options of segjax's network for `segmenter`."""
    backbone = {"output_stride": 8, "dilation_rule": "torchvision", "width": WIDTH}
    backbone |= {"name": "resnet", "depth": 50, "norm": network.BATCH}
    head = {"name": "conv", "width": 8 * WIDTH}
    if kind == "deeplab_v3":
        head = {"name": "deeplab_v3", "width": 16, "order": "pool_last", "extra_conv": True}
        head |= {"rates": (12, 24, 36)}
    side = {"name": "conv", "stage": "stage4", "width": 4 * WIDTH}
    shared = {"norm": network.BATCH, "align": "half_pixel"}
    return network.options(backbone, head | shared, side | shared if aux else None)


@pytest.mark.parametrize("kind", ["batch", "frozen"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_every_tensor_of_every_depth_is_placed(depth, kind):
    arrays = resnet(depth)
    assert len(arrays) == ENTRIES[depth]
    assert importers.origin_of(arrays, "f") == "torchvision_resnet"
    found = network.load(arrays, classifier(depth, {"name": kind}))
    counters = {name for name in arrays if name.endswith("num_batches_tracked")}
    assert found.unused == dict.fromkeys(counters, "a counter")
    assert len(found.arrays) == len(arrays) - len(counters)
    assert not found.kept + found.left


def test_each_tensor_is_placed_by_its_name():
    arrays = resnet(50)
    found = network.load(arrays, classifier(50))
    for theirs, ours in (
        ("conv1", "backbone/stem/0/conv"),
        ("layer1.0.conv1", "backbone/stage2/0/blocks/0/conv"),
        ("layer2.3.conv2", "backbone/stage3/3/blocks/1/conv"),
        ("layer3.5.conv3", "backbone/stage4/5/blocks/2/conv"),
        ("layer4.0.downsample.0", "backbone/stage5/0/shortcut/conv"),
    ):
        kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"{ours}/kernel", kernel)
    network.assert_placed(found, "head/classifier/kernel", arrays["fc.weight"].T[None, None])
    network.assert_placed(found, "head/classifier/bias", arrays["fc.bias"])
    kinds = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    for ours, kind in kinds.items():
        for theirs, path in (
            ("bn1", "backbone/stem/0/norm"),
            ("layer4.2.bn3", "backbone/stage5/2/blocks/2/norm"),
            ("layer2.0.downsample.1", "backbone/stage3/0/shortcut/norm"),
        ):
            network.assert_placed(found, f"{path}/{ours}", arrays[f"{theirs}.{kind}"])


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = resnet(18)
    del arrays["layer3.1.bn2.running_var"]
    arrays["layer3.2.conv1.weight"] = np.zeros((16, 16, 3, 3))
    arrays["layer3.1.conv3.scale"] = arrays["epoch"] = np.zeros(3)
    arrays["layer4.0.downsample.0.weight"] = np.zeros((32, 16, 3, 3))
    assert network.refusal(arrays, classifier(18)) == (
        "1 missing: backbone/stage4/1/blocks/1/norm/var; "
        "3 extra: backbone/stage4/2/blocks/0/conv/kernel, layer3.1.conv3.scale, epoch; "
        "1 misshapen: backbone/stage5/0/shortcut/conv/kernel [3, 3, 16, 32] for [1, 1, 16, 32]"
    )


def test_another_depth_or_stem_does_not_fit():
    text = network.refusal(resnet(34), classifier(18))
    assert text.startswith("80 extra: backbone/stage2/2/blocks/0/conv/kernel, ")
    text = network.refusal(resnet(50), classifier(50, stem="deep"))
    assert "10 missing: backbone/stem/1/conv/kernel, " in text
    assert "misshapen: backbone/stage2/0/blocks/0/conv/kernel [1, 1, 4, 4] for [1, 1, 8, 4]" in text


def test_folded_batch_norms_become_biases():
    arrays = resnet(18)
    folded = {
        name.replace(".bn", ".conv").replace("bn1.", "conv1.").replace("sample.1", "sample.0"): a
        for name, a in arrays.items()
        if name.endswith(".bias")
    } | {name: a for name, a in arrays.items() if a.ndim > 1}
    found = network.load(folded, classifier(18, network.NONE))
    assert len(found.arrays) == len(folded) == 42
    bias = arrays["layer2.0.downsample.1.bias"]
    network.assert_placed(found, "backbone/stage3/0/shortcut/conv/bias", bias)
    assert "20 extra: backbone/stem/0/conv/bias, " in network.refusal(folded, classifier(18))


@pytest.mark.parametrize("kind", ["fcn", "deeplab_v3"])
def test_every_tensor_of_a_segmentation_network_is_placed(kind):
    arrays = segmenter(kind)
    assert importers.origin_of(arrays, "f") == f"torchvision_{kind}"
    found = network.load(arrays, segmenting(kind))
    assert len(found.arrays) + len(found.unused) == len(arrays)
    assert set(found.unused.values()) == {"a counter"}
    places = {
        "backbone.layer3.0.conv2": "backbone/stage4/0/blocks/1/conv",
        "aux_classifier.0": "aux/conv/conv",
        "aux_classifier.4": "aux/score",
        "classifier.4": "head/score",
    }
    if kind == "fcn":
        places["classifier.0"] = "head/conv/conv"
    else:
        places |= {f"classifier.0.convs.{i}.0": f"head/aspp/atrous/{i - 1}/conv" for i in (1, 2, 3)}
        places |= {
            "classifier.0.convs.0.0": "head/aspp/point/conv",
            "classifier.0.convs.4.1": "head/aspp/image/conv",
            "classifier.0.project.0": "head/aspp/project/conv",
            "classifier.1": "head/conv/conv",
        }
    for theirs, ours in places.items():
        kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"{ours}/kernel", kernel)
    var = "aspp/image/norm/var" if kind == "deeplab_v3" else "conv/norm/var"
    theirs = "classifier.0.convs.4.2" if kind == "deeplab_v3" else "classifier.1"
    network.assert_placed(found, f"head/{var}", arrays[f"{theirs}.running_var"])


@pytest.mark.parametrize("kind", ["fcn", "deeplab_v3"])
def test_an_unused_auxiliary_head_must_be_skipped_by_name(kind):
    arrays = segmenter(kind)
    assert network.refusal(arrays, segmenting(kind, aux=False)) == (
        "7 extra: aux/conv/conv/kernel, aux/conv/norm/scale, aux/conv/norm/bias, "
        "aux/conv/norm/mean, aux/conv/norm/var, aux/score/kernel and 1 more"
    )
    found = network.load(arrays, segmenting(kind, aux=False), "aux/*")
    assert len(found.left) == 7


def test_the_two_heads_are_told_apart():
    text = network.refusal(segmenter("deeplab_v3"), segmenting("fcn"))
    assert "30 extra: head/aspp/point/conv/kernel" in text
    text = network.refusal(segmenter("fcn"), segmenting("deeplab_v3"))
    assert text.startswith("30 missing: head/aspp/atrous/0/conv/kernel")


def test_images_are_normalised_as_for_imagenet():
    for kind in ("resnet", "fcn", "deeplab_v3"):
        assert importers.ORIGINS[f"torchvision_{kind}"].preprocess == PREPROCESS


@real.needs(FILE)
def test_the_file_without_layer4_fits_if_its_gaps_are_skipped():
    arrays, _ = weight_files.read(real.FOLDER / FILE)
    backbone = {"name": "resnet", "depth": 18, "norm": network.NONE}
    model = network.options(backbone, {"name": "classifier"}, classes=1000)
    gaps = [f"backbone/stage5/{b}/blocks/{i}/conv/kernel" for b in (0, 1) for i in (0, 1)]
    assert network.refusal(arrays, model) == f"4 missing: {', '.join(gaps)}"
    found = network.load(arrays, model, "backbone/stage5/?/blocks/*/kernel")
    assert found.kept == gaps
    assert not found.left
    assert str(found).startswith("38 tensors loaded, 3427176 numbers; 4 kept")

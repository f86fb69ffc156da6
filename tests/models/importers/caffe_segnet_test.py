import jax
import numpy as np
import pytest

from segjax.models import functional, importers
from segjax.models.importers import weight_files
from tests.models.importers import (
    caffe_test,
    foreign,
    keras_test,
    network,
    real,
    torchvision_test,
)

WIDTHS, DEPTHS = foreign.WIDTHS, foreign.DEPTHS
KINDS = ("scale", "bias", "mean", "var")
STYLES = (("/0", "/1", "/2", "/3"), (".weight", ".bias", ".mean", ".var"))
CAMVID = (3, *DEPTHS[1:])  # depths of the head in Bayesian SegNet's example
VGG_FILE = "vgg16_block1_block3.safetensors"
VGG_SKIP = ("*/norm/*", "backbone/fc?/*", "head/*")


def layer(name: str, inputs: int, outputs: int, size: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, size, size), f"{name}.bias": (outputs,)}


def norm(name: str, features: int, blobs: int) -> dict[str, tuple[int, ...]]:
    """Blobs of a norm, 2 in the release, 4 in a fork that keeps statistics."""
    return {f"{name}_bn/{i}": (1, features, 1, 1) for i in range(blobs)}


def segnet(blobs: int = 2, camvid: bool = False) -> dict[str, np.ndarray]:
    """SegNet with `blobs` per norm, 0 if norms are absorbed; `camvid` adds a classifier."""
    found = {}
    for stage, block, inputs, outputs in foreign.CONVOLUTIONS:
        name = f"conv{stage + 1}_{block + 1}"
        found |= layer(name, inputs, outputs) | norm(name, outputs, blobs)
        last = stage == block == 0
        back = network.K if last and not camvid else outputs if last else inputs
        found |= layer(f"{name}_D", outputs, back)
        if not last or camvid:
            found |= norm(f"{name}_D", back, blobs)
    return network.draw(found | (layer("camvid", WIDTHS[0], network.K) if camvid else {}))


def basic(score: str = "conv_classifier") -> dict[str, np.ndarray]:
    """SegNet-Basic."""
    found, inputs = layer(score, WIDTHS[0], network.K, 1), 3
    for i in range(1, 5):
        for name, before in ((f"conv{i}", inputs), (f"conv_decode{i}", WIDTHS[0])):
            found |= layer(name, before, WIDTHS[0], 7) | norm(name, WIDTHS[0], 2)
        inputs = WIDTHS[0]
    return network.draw(found)


def model(kind: dict = network.BATCH, depths: tuple = DEPTHS, head: str = "segnet", **more) -> dict:
    """Options of a network; `kind` is the norm."""
    shared = {"kernel": 3, "norm": kind}
    backbone = {"name": "segnet_encoder", "depths": DEPTHS, "widths": WIDTHS} | shared
    part = {"name": head, "depths": depths} | shared if head == "segnet" else {"name": head}
    return network.options(backbone, part, **more)


def basic_model() -> dict:
    shared = {"kernel": 7, "norm": network.BATCH, "depths": (1,) * 4}
    backbone = {"name": "segnet_encoder", "widths": WIDTHS[:1] * 4, "local_norm": True}
    return network.options(
        backbone | shared, {"name": "segnet", "activation": False, "classifier": 1} | shared
    )


@pytest.mark.parametrize(
    ("arrays", "wanted", "added"),
    [
        (segnet(), model(), 50),
        (segnet(), model(network.FROZEN), 50),
        (segnet(blobs=4), model(), 0),
        (segnet(blobs=0), model(network.NONE), 0),
        (segnet(camvid=True), model(depths=CAMVID), 52),
        (basic(), basic_model(), 16),
        (basic("dense_softmax_inner_prod"), basic_model(), 16),
    ],
)
def test_every_tensor_is_placed(arrays, wanted, added):
    assert importers.origin_of(arrays, "f") == "caffe_segnet"
    found = network.load(arrays, wanted)
    assert len(found.arrays) == len(arrays) + added
    assert not found.unused


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_1", "backbone/stage1/0"),
        ("conv4_3", "backbone/stage4/2"),
        ("conv5_3_D", "head/stage5/0"),
        ("conv5_1_D", "head/stage5/2"),
        ("conv3_2_D", "head/stage3/1"),
        ("conv1_2_D", "head/stage1/0"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_each_tensor_is_placed_by_its_name(theirs, ours, style):
    arrays = segnet(blobs=4)
    renamed = {name: array for name, array in arrays.items() if "_bn" not in name}
    for name in arrays.keys() - renamed:
        renamed[f"{name[:-2]}{style[int(name[-1])]}"] = arrays[name].ravel()
    found = network.load(renamed, model())
    kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
    network.assert_placed(found, f"{ours}/conv/kernel", kernel)
    network.assert_placed(found, f"{ours}/conv/bias", arrays[f"{theirs}.bias"])
    for i, kind in enumerate(KINDS):
        network.assert_placed(found, f"{ours}/norm/{kind}", arrays[f"{theirs}_bn/{i}"].ravel())


@pytest.mark.parametrize(
    ("arrays", "wanted", "last"),
    [
        (segnet(), model(), "conv1_1_D"),
        (segnet(camvid=True), model(depths=CAMVID), "camvid"),
        (basic(), basic_model(), "conv_classifier"),
    ],
)
def test_the_last_layer_scores_the_classes(arrays, wanted, last):
    found = network.load(arrays, wanted)
    kernel = arrays[f"{last}.weight"].transpose(2, 3, 1, 0)
    network.assert_placed(found, "head/score/kernel", kernel)
    network.assert_placed(found, "head/score/bias", arrays[f"{last}.bias"])


def test_every_stage_of_basic_has_one_layer_in_encoder_and_decoder():
    arrays = basic()
    found = network.load(arrays, basic_model())
    for i in range(1, 5):
        for theirs, part in ((f"conv{i}", "backbone"), (f"conv_decode{i}", "head")):
            kernel = arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0)
            network.assert_placed(found, f"{part}/stage{i}/0/conv/kernel", kernel)
            shift = arrays[f"{theirs}_bn/1"].ravel()
            network.assert_placed(found, f"{part}/stage{i}/0/norm/bias", shift)


@pytest.mark.parametrize("name", ["batch", "frozen"])
def test_a_merged_norm_is_exactly_scale_times_x_plus_shift(name):
    kind = {"name": name, "epsilon": 1e-9}
    arrays = segnet()
    found = network.load(arrays, model(kind)).arrays
    trees = jax.tree_util.tree_map_with_path(
        lambda path, _: found[jax.tree_util.keystr(path[1:], simple=True, separator="/")],
        network._trees(model(kind)),
    )
    net = functional.merge(functional.graphs(network._build(model(kind))).inference, *trees)
    x = np.random.default_rng(0).normal(0, 100, (1, 5, 7, WIDTHS[0])).astype(np.float32)
    scale, shift = (arrays[f"conv1_1_bn/{i}"].ravel() for i in range(2))
    np.testing.assert_array_equal(net.backbone.stage1[0].norm(x), x * scale + shift)


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = segnet()
    del arrays["conv2_1_bn/1"]
    arrays["conv6_1.weight"] = arrays["conv5_4_D_bn/0"] = arrays["conv1_1_bn/4"] = np.zeros(1)
    arrays["conv4_3_D_bn/0"] = np.zeros((1, 2, 3, 1))
    arrays["conv1_2_D.weight"] = np.zeros((4, 4, 7, 7))
    assert network.refusal(arrays, model()) == (
        "1 missing: backbone/stage2/0/norm/bias; "
        "3 extra: conv6_1.weight, conv5_4_D_bn/0, conv1_1_bn/4; "
        "2 misshapen: head/stage1/0/conv/kernel [7, 7, 4, 4] for [3, 3, 4, 4], "
        "head/stage4/0/norm/scale [1, 2, 3, 1] for [32]"
    )


def test_one_vector_of_statistics_is_not_enough():
    arrays = segnet() | {"conv2_1_bn/2": np.zeros((1, WIDTHS[1], 1, 1))}
    assert network.refusal(arrays, model()) == "1 missing: backbone/stage2/0/norm/var"


def test_norms_that_the_network_lacks_are_extra():
    text = network.refusal(segnet(), model(network.NONE))
    assert text.startswith("50 extra: backbone/stage1/0/norm/scale, ")


@pytest.mark.parametrize(
    "arrays",
    [
        caffe_test.make(),
        caffe_test.release(),
        keras_test.make(),
        torchvision_test.make(batch_norm=False),
    ],
)
def test_a_vgg16_is_loaded_into_the_encoder(arrays):
    found = network.load(arrays, model(), *VGG_SKIP).arrays
    expected = foreign.load(arrays, skip=("*fc?*", "head/*")).arrays
    assert len(found) == len(expected) == 26
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array)


@real.needs(VGG_FILE)
def test_a_part_of_a_vgg16_is_loaded_into_the_encoder():
    arrays, _ = weight_files.read(real.FOLDER / VGG_FILE)
    wanted = model()
    wanted["backbone"] = wanted["backbone"] | {"widths": (64, 128, 256, 512, 512)}
    found = network.load(arrays, wanted, "*/norm/*", "backbone/stage[45]/*", "head/*")
    assert len(found.arrays) == 14
    kernel = arrays["block3_conv3/kernel"].astype(np.float32)
    network.assert_placed(found, "backbone/stage3/2/conv/kernel", kernel)


def test_images_are_blue_green_red_and_not_normalised():
    preprocess = importers.ORIGINS["caffe_segnet"].preprocess
    assert preprocess == {"mean": (0, 0, 0), "std": (1, 1, 1), "bgr": True}

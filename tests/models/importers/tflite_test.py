import numpy as np
import pytest

from segjax.models import importers
from segjax.models.importers import weight_files
from tests.models.importers import network, real

FILE = "deeplabv3_mobilenet_v2_pascal_dequantised.safetensors"
GROUPS = ((8, 1), (8, 2), (8, 3), (16, 4), (24, 3), (40, 3), (80, 1))  # at a quarter of the width
STEM, ASPP = 8, 16
VOC = {"background": 0, "cat": 8, "person": 15}


def convolution(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A convolution of shape [K, k, k, C], or a depthwise one of [1, k, k, C], and its bias."""
    return {f"{name}/weights": shape, f"{name}/bias": (max(shape[0], shape[3] * (shape[0] == 1)),)}


def deeplab() -> dict[str, np.ndarray]:
    """A narrow network."""
    found = convolution("MobilenetV2/Conv", STEM, 3, 3, 3)
    features, number = STEM, 0
    for channels, count in GROUPS:
        for _ in range(count):
            name, inner = f"MobilenetV2/expanded_conv{f'_{number}' if number else ''}", features
            if number:
                inner = 6 * features
                found |= convolution(f"{name}/expand", inner, 1, 1, features)
            found |= convolution(f"{name}/depthwise", 1, 3, 3, inner)
            found |= convolution(f"{name}/project", channels, 1, 1, inner)
            features, number = channels, number + 1
    for name, inputs in (("aspp0", features), ("image_pooling", features)):
        found |= convolution(name, ASPP, 1, 1, inputs)
    found |= convolution("concat_projection", ASPP, 1, 1, 2 * ASPP)
    return network.draw(found | convolution("logits/semantic", network.K, 1, 1, ASPP))


def model(width: float = 0.25, aspp: int = ASPP, classes: int = network.K) -> dict:
    backbone = {"name": "mobilenet_v2", "norm": network.NONE, "width": width, "output_stride": 16}
    head = {"name": "deeplab_v3", "rates": (), "norm": network.NONE, "width": aspp}
    head |= {"order": "pool_first", "align": "corners"}
    return network.options(backbone, head, classes=classes)


def test_every_tensor_is_placed():
    arrays = deeplab()
    assert importers.origin_of(arrays, "f") == "tflite_deeplab_v3"
    found = network.load(arrays, model())
    assert len(found.arrays) == len(arrays) == 110
    assert not found.kept + found.left + list(found.unused)
    for theirs, ours in (
        ("MobilenetV2/Conv", "backbone/stem/conv"),
        ("MobilenetV2/expanded_conv/project", "backbone/blocks/0/project/conv"),
        ("MobilenetV2/expanded_conv_1/expand", "backbone/blocks/1/expand/conv"),
        ("MobilenetV2/expanded_conv_16/project", "backbone/blocks/16/project/conv"),
        ("aspp0", "head/aspp/point/conv"),
        ("image_pooling", "head/aspp/image/conv"),
        ("concat_projection", "head/aspp/project/conv"),
        ("logits/semantic", "head/score"),
    ):
        kernel = arrays[f"{theirs}/weights"].transpose(1, 2, 3, 0)
        network.assert_placed(found, f"{ours}/kernel", kernel)
        network.assert_placed(found, f"{ours}/bias", arrays[f"{theirs}/bias"])
    for theirs, number in (("expanded_conv", 0), ("expanded_conv_14", 14)):
        kernel = arrays[f"MobilenetV2/{theirs}/depthwise/weights"].transpose(1, 2, 0, 3)
        network.assert_placed(found, f"backbone/blocks/{number}/depthwise/kernel", kernel)


def test_missing_extra_and_misshapen_tensors_are_listed():
    arrays = deeplab()
    del arrays["MobilenetV2/expanded_conv_3/depthwise/bias"]
    arrays["aspp1_depthwise/weights"] = np.zeros((1, 3, 3, 80))
    arrays["MobilenetV2/expanded_conv_2/depthwise/weights"] = np.zeros((1, 3, 3, 8))
    arrays["aspp0/weights"] = np.zeros((ASPP, 80))
    assert network.refusal(arrays, model()) == (
        "1 missing: backbone/blocks/3/depthwise/bias; 1 extra: aspp1_depthwise/weights; "
        "2 misshapen: backbone/blocks/2/depthwise/kernel [3, 3, 1, 8] for [3, 3, 1, 48], "
        "head/aspp/point/conv/kernel [16, 80] for [1, 1, 80, 16]"
    )


def test_images_are_centred_on_128():
    preprocess = importers.ORIGINS["tflite_deeplab_v3"].preprocess
    assert preprocess == {"mean": (128,) * 3, "std": (128,) * 3, "bgr": False}


def labels(photograph: str) -> np.ndarray:
    """The release's labels of a photograph of scikit-image, resized to a long side of 513."""
    data = pytest.importorskip("skimage.data", reason="scikit-image has the photographs")
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray(getattr(data, photograph)())
    scale = 513 / max(image.size)
    image = image.resize([round(scale * side) for side in image.size], pillow.BILINEAR)
    arrays, _ = weight_files.read(real.FOLDER / FILE)
    full = model(1.0, 256, 21)
    return network.scores(arrays, full, "tflite_deeplab_v3", np.asarray(image)[None])[0].argmax(-1)


@real.needs(FILE)
@pytest.mark.parametrize(
    ("photograph", "what", "least"), [("chelsea", "cat", 0.3), ("astronaut", "person", 0.3)]
)
def test_the_release_labels_cat_and_person(photograph, what, least):
    found = labels(photograph)
    share = (found == VOC[what]).mean()
    assert share > least
    # Other classes get almost no pixels.
    assert share + (found == VOC["background"]).mean() > 0.95
    # The middle of both pictures shows the animal and the woman; the upper left corner does not.
    assert found[found.shape[0] // 2, found.shape[1] // 2] == VOC[what]


@real.needs(FILE)
def test_the_release_finds_neither_in_a_cup_of_coffee():
    found = labels("coffee")
    assert not np.isin(found, [VOC["cat"], VOC["person"]]).any()


@real.needs(FILE)
def test_all_numbers_of_the_release_are_used():
    arrays, _ = weight_files.read(real.FOLDER / FILE)
    found = network.load(arrays, model(1.0, 256, 21))
    assert str(found) == "110 tensors loaded, 2097013 numbers"

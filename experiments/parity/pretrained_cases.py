"""The files of weights that `pretrained.py` makes fixtures of, and the size of the image.

Nothing here needs torch: the tests draw the files again.
"""

from typing import NamedTuple

from experiments.parity import atrous_nets, decoder_nets
from experiments.parity.drawn import Recipe

SIZE = (97, 161)
EVERY = 5  # pixels kept
DEPTHS = (2, 2, 3, 3, 3)
_WIDTHS, _FC, _K = (4, 8, 16, 32, 32), 256, 5
_CONVOLUTIONS = [
    (stage, block, (3, *_WIDTHS)[stage] if block == 0 else _WIDTHS[stage], _WIDTHS[stage])
    for stage, depth in enumerate(DEPTHS)
    for block in range(depth)
]


class Case(NamedTuple):
    """A file of weights.

    Attributes:
        origin: a key of `importers.ORIGINS`.
        pooled: the logits are means over the map, as a classifier gives them.
        patch: sides of the image's patches of one colour.
    """

    origin: str
    pooled: bool = False
    patch: tuple[int, int] = (5, 7)


def _of(nets: dict, *names: str) -> dict[str, Case]:
    return {name: Case(nets[name].origin, nets[name].pooled, nets[name].patch) for name in names}


TABLES = {
    "atrous": (
        "fcn_resnet50",
        "deeplabv3_resnet50",
        "pspnet50",
        "deeplab_v2_resnet50",
        "deeplab_v3_mobilenet_v2",
        "resnet18",
        "mobilenet_v2",
    ),
    "decoders": ("refinenet50", "segnet", "segnet_basic"),
}
CASES = {
    **_of(atrous_nets.NETS, *TABLES["atrous"]),
    **_of(decoder_nets.NETS, *TABLES["decoders"]),
    "fcn8s": Case("caffe_fcn"),
    "vgg16": Case("torchvision_vgg16"),
    "vgg16_bn": Case("torchvision_vgg16_bn"),
    "vgg16_keras": Case("keras_vgg16"),
    "vgg16_caffe": Case("caffe_vgg16"),
}


def keras_vgg() -> dict[str, Recipe]:
    """Tensors of a narrow Keras VGG16."""
    found = {}
    for stage, block, inputs, outputs in _CONVOLUTIONS:
        name = f"block{stage + 1}_conv{block + 1}"
        found[f"{name}/kernel"] = _kernel((3, 3, inputs, outputs), 9 * inputs)
        found[f"{name}/bias"] = Recipe((outputs,), "bias")
    for name, inputs, outputs in _dense(("fc1", "fc2", "predictions")):
        found[f"{name}/kernel"] = _kernel((inputs, outputs), inputs)
        found[f"{name}/bias"] = Recipe((outputs,), "bias")
    return found


def caffe_vgg() -> dict[str, Recipe]:
    """Tensors of a narrow VGG-16 of Caffe."""
    found = {}
    for stage, block, inputs, outputs in _CONVOLUTIONS:
        name = f"conv{stage + 1}_{block + 1}"
        found[f"{name}.weight"] = _kernel((outputs, inputs, 3, 3), 9 * inputs)
        found[f"{name}.bias"] = Recipe((outputs,), "bias")
    for name, inputs, outputs in _dense(("fc6", "fc7", "fc8")):
        found[f"{name}.weight"] = _kernel((outputs, inputs), inputs)
        found[f"{name}.bias"] = Recipe((outputs,), "bias")
    return found


def _kernel(shape: tuple[int, ...], fan_in: int) -> Recipe:
    # The image's colours are large without a deviation.
    return Recipe(shape, "kernel", fan_in, 2**-6 if fan_in == 27 else 1)


def _dense(names: tuple[str, str, str]) -> list[tuple[str, int, int]]:
    return [
        (names[0], 49 * _WIDTHS[-1], _FC),
        (names[1], _FC, _FC),
        (names[2], _FC, _K),
    ]

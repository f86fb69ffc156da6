"""Networks of others, imported from checkouts as they are, narrowed on request, run by torch.

torchvision: fcn, deeplabv3, resnet; semseg (github.com/hszhao/semseg): PSPNet; deeplab-pytorch
(github.com/kazuto1011/deeplab-pytorch): DeepLab v2 at several scales; refinenet-pytorch
(github.com/DrSleep/refinenet-pytorch); pytorch-semantic-segmentation (github.com/zijundeng): the
Global Convolutional Network. Only their outputs are kept.
"""

import contextlib
import importlib
import math
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch.nn import functional as F

from experiments.parity import drawn

Folders = Mapping[str, str]  # of checkouts, by the flags that name them
_BEFORE_ADDITION = re.compile(r"(.*\.)(bn[23]|increase\.bn)")
# Convolutions before an addition, in decoders without norms, and what multiplies them.
_ADDED = {r".*_relu_varout_dimred|brm\d\.conv2": 0.25, r".*_outvar_dimred": 0.5}


class Upstream:
    """A module of a checkout in evaluation mode.

    Args:
        module: with batch norms; its weights are drawn by their names.
        forward: (module, x [1, 3, H, W]) -> outputs [1, K, H, W] or [1, K], in our order.
        gain: of the convolution that sees the image.
    """

    def __init__(self, module: torch.nn.Module, forward: Callable, gain: float = 1):
        self.module, self.forward = module.eval(), forward
        names = module.state_dict()
        self.recipes = {n: _recipe(n, tuple(t.shape), names, gain) for n, t in names.items()}
        self.weights = {name: drawn.draw(name, how) for name, how in self.recipes.items()}

    def run(self, x: torch.Tensor, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Logits of every output, [H, W, K] or [K], in the type of x."""
        self.module.to(x.dtype)
        self.module.load_state_dict({n: torch.from_numpy(np.array(w)) for n, w in weights.items()})
        with torch.no_grad():
            outputs = self.forward(self.module, x)
        return [y[0].permute(*range(1, y.ndim - 1), 0).numpy() for y in outputs]


def _recipe(name: str, shape: tuple[int, ...], names: Mapping, gain: float) -> drawn.Recipe:
    layer, _, kind = name.rpartition(".")
    if kind == "num_batches_tracked":
        return drawn.Recipe(shape, "counter")
    if f"{layer}.running_var" not in names:
        if kind == "bias":
            return drawn.Recipe(shape, "bias")
        if not (len(shape) == 4 and shape[1] == 3):  # which sees the image
            gain = next((gain for p, gain in _ADDED.items() if re.fullmatch(p, layer)), 1)
        return drawn.Recipe(shape, "kernel", math.prod(shape[1:]), gain)
    if kind == "weight":
        return drawn.Recipe(shape, "scale", gain=0.25 if _ends_a_block(layer, names) else 1)
    return drawn.Recipe(shape, kind.removeprefix("running_"))


def _ends_a_block(layer: str, names: Mapping) -> bool:
    """Whether a norm comes before an addition: with small ones blocks do not double the numbers."""
    parts = _BEFORE_ADDITION.fullmatch(layer)
    if not parts or "." not in parts[1].rstrip("."):
        return False  # the stem's
    return parts[2] != "bn2" or f"{parts[1]}bn3.weight" not in names


@contextlib.contextmanager
def narrowed(divisor: int) -> Iterator[None]:
    """Layers made in here have a share of the channels, where there are 64 or more."""
    places = {torch.nn.Conv2d: 2, torch.nn.Linear: 2, torch.nn.BatchNorm2d: 1}
    whole = {cls: cls.__init__ for cls in places}

    def narrow(cls):
        def init(self, *args, **options):
            count = places[cls]
            widths = [n // divisor if n >= 64 else n for n in args[:count]]
            whole[cls](self, *widths, *args[count:], **options)

        return init

    for cls in places:
        cls.__init__ = narrow(cls)
    try:
        yield
    finally:
        for cls, init in whole.items():
            cls.__init__ = init


def torchvision(folders: Folders, name: str, divisor: int, classes: int) -> Upstream:
    """resnetN, fcn_resnetN or deeplabv3_resnetN, the last two with their auxiliary heads."""
    networks = _torchvision_models(folders)
    with narrowed(divisor):
        if name in vars(networks):
            return Upstream(vars(networks)[name](num_classes=classes), lambda net, x: [net(x)])
        make = vars(networks.segmentation)[name]
        options = {"weights": None, "weights_backbone": None, "aux_loss": True}
        net = make(num_classes=classes, **options)
    return Upstream(net, lambda net, x: list(net(x).values()))


def semseg(folders: Folders, name: str, divisor: int, classes: int) -> Upstream:
    """pspnetN with its auxiliary head; sizes are 8 n + 1."""
    _on_path(folders["semseg"])
    pspnet = importlib.import_module("model.pspnet")
    caught = []
    options = {"layers": int(name.removeprefix("pspnet")), "classes": classes, "pretrained": False}
    with narrowed(divisor):
        # Its forward hands the logits to the loss alone, when it trains.
        net = pspnet.PSPNet(**options, criterion=lambda logits, _: caught.append(logits))

    def forward(net, x):
        caught.clear()
        net.training = True  # of the network itself: its layers stay in evaluation mode
        net(x, None)
        return list(caught)

    return Upstream(net, forward)


def deeplab_pytorch(folders: Folders, name: str, divisor: int, classes: int) -> Upstream:
    """deeplab_v2_resnetN: the maximum over scales, then 1, 0.75 and 0.5."""
    _on_path(folders["deeplab-pytorch"])
    networks = importlib.import_module("libs.models")
    blocks = {"50": [3, 4, 6, 3], "101": [3, 4, 23, 3]}[name.removeprefix("deeplab_v2_resnet")]
    with narrowed(divisor):
        base = networks.DeepLabV2(classes, blocks, atrous_rates=[6, 12, 18, 24])
        net = networks.MSC(base=base, scales=[0.5, 0.75])
    # PyTorch then mapped pixels by the ratio of the sizes; since 1.6 it uses the factor asked for.
    # They differ where the factor gives no whole size.
    msc = sys.modules["libs.models.msc"]
    functional = types.SimpleNamespace(**vars(F) | {"interpolate": _interpolate_by_sizes})
    msc.F = functional

    def forward(net, x):
        net.training = True  # of the wrapper itself
        whole, half, three_quarters, fused = net(x)
        outputs = (fused, whole, three_quarters, half)
        # As its evaluation does with the first.
        options = {"size": x.shape[2:], "mode": "bilinear", "align_corners": False}
        return [F.interpolate(y, **options) for y in outputs]

    return Upstream(net, forward, gain=2**-6)


def refinenet(folders: Folders, name: str, divisor: int, classes: int) -> Upstream:
    """refinenetN: the logits at a quarter of the size, stretched as it stretches between stages."""
    _on_path(folders["refinenet"])
    networks = importlib.import_module("models.resnet")
    depths = {"50": [3, 4, 6, 3], "101": [3, 4, 23, 3]}[name.removeprefix("refinenet")]
    with narrowed(divisor):
        net = networks.RefineNet(networks.Bottleneck, depths, num_classes=classes)
    options = {"mode": "bilinear", "align_corners": True}
    return Upstream(net, lambda net, x: [F.interpolate(net(x), size=x.shape[2:], **options)])


def gcn(folders: Folders, name: str, divisor: int, classes: int) -> Upstream:
    """gcn_resnetN; theirs has ResNet-152.

    It is told that images of odd sizes have a pixel more, and then cropped, which ours does.
    """
    networks = _torchvision_models(folders)
    checkout = pathlib.Path(folders["gcn"])
    for package, more in (
        ("zijundeng", {}),
        ("zijundeng.utils", {"initialize_weights": lambda *_: None}),
        ("zijundeng.models", {}),
        ("zijundeng.models.config", {"res152_path": None}),
    ):
        module = sys.modules.setdefault(package, types.ModuleType(package))
        module.__path__ = [str(checkout.joinpath(*package.split(".")[1:]))]
        vars(module).update(more)
    theirs = importlib.import_module("zijundeng.models.gcn")
    depth = name.removeprefix("gcn_resnet")
    theirs.models = types.SimpleNamespace(resnet152=getattr(networks, f"resnet{depth}"))
    with narrowed(divisor):
        net = theirs.GCN(classes, input_size=None, pretrained=False)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):  # Python 2 divided (7 - 1) / 2 to a whole number
            layer.padding = tuple(int(n) for n in layer.padding)

    def forward(net, x):
        height, width = x.shape[2:]
        net.input_size = (height + height % 2, width + width % 2)
        return [net(x)[:, :, :height, :width]]

    return Upstream(net, forward)


def _torchvision_models(folders: Folders) -> types.ModuleType:
    # The package imports its compiled operators, which no network here uses.
    if "torchvision" not in sys.modules:
        package = types.ModuleType("torchvision")
        package.__path__ = [str(pathlib.Path(folders["torchvision"], "torchvision"))]
        sys.modules["torchvision"] = package
    return importlib.import_module("torchvision.models")


def _interpolate_by_sizes(x: torch.Tensor, **options) -> torch.Tensor:
    if options.get("scale_factor"):
        options["recompute_scale_factor"] = True
    return F.interpolate(x, **options)


def _on_path(checkout: str) -> None:
    if checkout not in sys.path:
        sys.path.insert(0, checkout)

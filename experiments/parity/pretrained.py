"""Fixtures of the networks that files of weights belong to: logits of upstream code at 97 x 161.

    python -m experiments.parity.pretrained --torchvision=DIR --semseg=DIR --deeplab-pytorch=DIR \
        --refinenet=DIR --pytorch-fcn=DIR [--only=vgg16]

The directories are checkouts (for torchvision an unpacked wheel will do). The networks are those of
`atrous.py`, `decoders.py` and `fcn.py`, and VGG-16s. Writes the recipes of the weights and every
fifth pixel of the prediction's logits to tests/fixtures/pretrained/*.npz. The test makes files of
the weights and gives nothing but these to the recipe `pretrained`.
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional as F

from experiments.parity import (
    atrous_nets,
    decoder_nets,
    decoder_oracles,
    drawn,
    fcn,
    measure,
    oracle_nets,
    upstream,
)
from experiments.parity import pretrained_cases as cases
from experiments.parity.nets import DIVISOR, K
from experiments.shared import pages
from segjax.models import importers

FOLDER = pages.ROOT / "tests" / "fixtures" / "pretrained"
CHECKOUTS = ("torchvision", "semseg", "deeplab-pytorch", "refinenet", "pytorch-fcn")
_MAKERS = {
    "torchvision": upstream.torchvision,
    "semseg": upstream.semseg,
    "deeplab-pytorch": upstream.deeplab_pytorch,
    "refinenet": upstream.refinenet,
}
_OF_TABLES = {
    **dict.fromkeys(cases.TABLES["atrous"], (atrous_nets.NETS, oracle_nets.make)),
    **dict.fromkeys(cases.TABLES["decoders"], (decoder_nets.NETS, decoder_oracles.make)),
}


def main() -> None:
    """Writes the fixtures."""
    parser = argparse.ArgumentParser()
    for flag in CHECKOUTS:
        parser.add_argument(f"--{flag}", required=True, help="a checkout")
    parser.add_argument("--only", default="", help="these alone")
    given = parser.parse_args()
    folders = {flag: vars(given)[flag.replace("-", "_")] for flag in CHECKOUTS}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in given.only.split(",") if given.only else cases.CASES:
        recipes, logits = _made(name, folders)
        kept = logits[:: cases.EVERY, :: cases.EVERY] if logits.ndim == 3 else logits
        assert np.isfinite(kept).all()
        np.savez_compressed(FOLDER / f"{name}.npz", recipes=json.dumps(recipes), logits=kept)
        print(name, kept.shape, float(np.abs(kept).max()), flush=True)


def _made(name: str, folders: Mapping[str, str]) -> tuple[Mapping, np.ndarray]:
    """Recipes of the tensors, and the logits: [H, W, K], or [K] of a classifier."""
    if name in _OF_TABLES:
        networks, own = _OF_TABLES[name]
        net = networks[name]
        make = functools.partial(_MAKERS[net.oracle], folders) if net.oracle != "own" else own
        oracle = make(name, DIVISOR, K)
        logits = measure.run_oracle(net, oracle, cases.SIZE, oracle.weights)[0]
        return oracle.recipes, logits
    if name == "fcn8s":
        return _fcn(folders["pytorch-fcn"])
    if name in ("vgg16", "vgg16_bn"):
        return _torchvision_vgg(folders, name)
    recipes = {"vgg16_keras": cases.keras_vgg, "vgg16_caffe": cases.caffe_vgg}[name]()
    weights = {n: drawn.draw(n, recipe) for n, recipe in recipes.items()}
    layers = _keras(weights) if name == "vgg16_keras" else _caffe(weights)
    return recipes, _classified(name, _vgg(layers, up=name == "vgg16_caffe"), layers[-3:])


def _fcn(checkout: str) -> tuple[Mapping, np.ndarray]:
    net = fcn.oracle(checkout, "fcn8s", fcn.NARROW)
    recipes = {
        name: _recipe_of_fcn(name, tuple(tensor.shape))
        for name, tensor in net.state_dict().items()
        if not name.startswith("upscore")
    }
    weights = {name: drawn.draw(name, recipe) for name, recipe in recipes.items()}
    fixed = {n: t.numpy() for n, t in net.state_dict().items() if n.startswith("upscore")}
    image = drawn.draw_images([cases.SIZE])[0]
    return recipes, fcn.run_oracle(net, weights | fixed, image)


def _recipe_of_fcn(name: str, shape: tuple[int, ...]) -> drawn.Recipe:
    if name.endswith("bias"):
        return drawn.Recipe(shape, "bias")
    gain = {"conv1_1.weight": 2**-6, "score_fr.weight": 4}.get(name, 1)
    return drawn.Recipe(shape, "kernel", int(np.prod(shape[1:])), gain)


def _image(name: str) -> torch.Tensor:
    """The image as the weights know images, [1, 3, H, W]."""
    case = cases.CASES[name]
    made = importers.ORIGINS[case.origin].preprocess
    x = drawn.draw_images([cases.SIZE], case.patch)[0].astype(np.float64)
    x = (x - np.array(made["mean"])) / np.array(made["std"])
    x = x[:, :, ::-1] if made["bgr"] else x
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))[None]).float()


def _torchvision_vgg(folders: Mapping[str, str], name: str) -> tuple[Mapping, np.ndarray]:
    """Its features as they are, and its dense layers at every place."""
    networks = upstream._torchvision_models(folders)
    with upstream.narrowed(DIVISOR):
        net = upstream.Upstream(vars(networks)[name](num_classes=K), lambda net, x: [x])
    state = {n: torch.from_numpy(np.array(w)) for n, w in net.weights.items()}
    net.module.load_state_dict(state)
    dense = []
    for number, size in ((0, 7), (3, 1), (6, 1)):
        weight, bias = (state[f"classifier.{number}.{kind}"] for kind in ("weight", "bias"))
        dense.append((weight.reshape(weight.shape[0], -1, size, size), bias))
    return net.recipes, _classified(name, net.module.features, dense)


def _classified(name: str, features: Callable, dense: list) -> np.ndarray:
    """Logits [H, W, K] of a VGG whose dense layers are run at every place of its last map."""
    with torch.no_grad():
        x = features(_image(name))
        for i, (weight, bias) in enumerate(dense):
            x = F.conv2d(F.relu(x) if i else x, weight, bias, padding=weight.shape[-1] // 2)
        # A cell of 32 x 32 pixels each, centre on centre; the last ones reach to the border.
        options = {"mode": "bilinear", "align_corners": False}
        x = F.interpolate(x, size=[32 * n for n in x.shape[2:]], **options)
        x = x[:, :, : cases.SIZE[0], : cases.SIZE[1]]
        beyond = [max(0, n - m) for n, m in zip(cases.SIZE, x.shape[2:], strict=True)]
        x = F.pad(x, (0, beyond[1], 0, beyond[0]), mode="replicate")
    return x[0].permute(1, 2, 0).numpy()


def _vgg(layers: list, *, up: bool) -> Callable:
    """The convolutions of a VGG-16 and its poolings, which round up or down."""

    def run(x):
        rest = iter(layers)
        for depth in cases.DEPTHS:
            for _ in range(depth):
                x = F.relu(F.conv2d(x, *next(rest), padding=1))
            x = F.max_pool2d(x, 2, ceil_mode=up)
        return x

    return run


def _keras(weights: Mapping[str, np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layers = []
    for name, kernel in weights.items():
        if not name.endswith("kernel"):
            continue
        if kernel.ndim == 2:
            size = 7 if name.startswith("fc1") else 1
            kernel = kernel.reshape(size, size, -1, kernel.shape[1])
        bias = weights[name.replace("kernel", "bias")]
        kernel = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        layers.append((torch.from_numpy(kernel), torch.from_numpy(bias)))
    return layers


def _caffe(weights: Mapping[str, np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layers = []
    for name, weight in weights.items():
        if not name.endswith("weight"):
            continue
        if weight.ndim == 2:
            size = 7 if name.startswith("fc6") else 1
            weight = weight.reshape(weight.shape[0], -1, size, size)
        bias = weights[name.replace("weight", "bias")]
        layers.append((torch.from_numpy(weight), torch.from_numpy(bias)))
    return layers


if __name__ == "__main__":
    main()

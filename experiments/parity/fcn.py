"""FCN's logits against pytorch-fcn with the same random weights; the fixtures of the tests.

    python -m experiments.parity.fcn --oracle=DIR --oracle-commit=4b98850 --hardware="2 CPU cores"

DIR is a checkout of github.com/wkentaro/pytorch-fcn, whose networks are imported from there and run
by torch; only their logits are kept. Writes tests/fixtures/fcn/*.npz (narrow networks,
every third pixel of the logits) and experiments/parity/fcn.{json,md} (narrow and full width).
"""

import argparse
import functools
import importlib
import math
import pathlib
import sys
import types
from collections.abc import Mapping

import numpy as np
import torch
from flax import nnx

from experiments.parity import drawn, our_side, report
from experiments.shared import pages
from segjax import models
from segjax.models import importers

FIXTURES = pages.ROOT / "tests" / "fixtures" / "fcn"
K = 5
SIZES = ((64, 64), (57, 43), (97, 130))
EVERY = 3  # pixels kept in a fixture: shares no factor with 8, 16 and 32, so every phase is seen
TOLERANCE = 1e-4
MEAN = (104.00698793, 116.66876762, 122.67891434)  # BGR, of the oracle's loader
ORIGIN = "caffe_fcn"
NARROW = {64: 4, 128: 8, 256: 16, 512: 32, 4096: 24}
FULL = {width: width for width in NARROW}
# The oracle's class, our head, and the factors of its skips before they are scored.
VARIANTS = {
    "fcn32s": ("FCN32s", {"name": "fcn32s"}, {}),
    "fcn16s": ("FCN16s", {"name": "fcn16s"}, {"score_pool4": 1}),
    "fcn8s": ("FCN8s", {"name": "fcn8s"}, {"score_pool4": 1, "score_pool3": 1}),
    "fcn8s_at_once": (
        "FCN8sAtOnce",
        {"name": "fcn8s", "at_once": True},
        {"score_pool4": 0.01, "score_pool3": 0.0001},
    ),
}
_GAINS = {"conv1_1": 2**-6, "score_fr": 4}  # colours are large, what fc7 has left is small


def main() -> None:
    """Measures, then writes the fixtures and the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--oracle", required=True, help="a checkout of wkentaro/pytorch-fcn")
    parser.add_argument("--oracle-commit", required=True, help="of that checkout, for the page")
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()
    images = drawn.draw_images(SIZES)
    measured = {"narrow": {}, "full": {}}
    for width, widths in (("narrow", NARROW), ("full", FULL)):
        for variant in VARIANTS:
            net = oracle(given.oracle, variant, widths)
            weights = draw_weights(net, variant)
            expected = [run_oracle(net, weights, image) for image in images]
            found = {"sizes": compare(variant, widths, weights, images, expected)}
            if width == "narrow":
                found["shares"] = shares(net, weights, images, expected)
                write_fixtures(variant, weights, images, expected)
            measured[width][variant] = found
    write_page(measured, given)


def draw_weights(net: torch.nn.Module, variant: str) -> dict[str, np.ndarray]:
    """Weights under the oracle's names, float32 OIHW; its upsamplings stay as it makes them.

    Whole numbers from -15 to 15 times a power of two: exact, and they compress. The same seed gives
    all variants the same trunk.
    """
    factors = VARIANTS[variant][2]
    weights = {}
    for name, tensor in net.state_dict().items():
        layer, kind = name.split(".")
        if layer.startswith("upscore"):
            weights[name] = tensor.numpy()
            continue
        rng = np.random.default_rng([drawn.SEED, *name.encode()])
        whole = rng.integers(-15, 16, tuple(tensor.shape), np.int8)
        if kind == "bias":
            scale = 2**-6
        else:
            rms = math.sqrt(2 / math.prod(tensor.shape[1:]))  # He et al. 2015
            scale = rms / 9 * _GAINS.get(layer, 1) / factors.get(layer, 1)
        weights[name] = np.ldexp(whole.astype(np.float32), round(math.log2(scale)))
    return weights


def oracle(checkout: str, variant: str, widths: Mapping[int, int]) -> torch.nn.Module:
    """The network of pytorch-fcn in evaluation mode, with its channels renamed by `widths`."""
    # Its package imports more than its networks need: only they are imported, and the modules
    # that they use for downloads are empty.
    for name in ("fcn", "torchvision"):
        sys.modules.setdefault(name, types.ModuleType(name))
    package = types.ModuleType("torchfcn")
    package.__path__ = [str(pathlib.Path(checkout, "torchfcn"))]
    sys.modules["torchfcn"] = package
    networks = importlib.import_module("torchfcn.models")

    class Conv2d(torch.nn.Conv2d):
        def __init__(self, features_in, features, *args, **options):
            features_in, features = (widths.get(n, n) for n in (features_in, features))
            super().__init__(features_in, features, *args, **options)

    cls = getattr(networks, VARIANTS[variant][0])
    for module in ("fcn32s", "fcn16s", "fcn8s"):
        layers = types.SimpleNamespace(**vars(torch.nn) | {"Conv2d": Conv2d})
        sys.modules[f"torchfcn.models.{module}"].nn = layers
    return cls(n_class=K).eval()


def run_oracle(net: torch.nn.Module, weights: Mapping, image: np.ndarray) -> np.ndarray:
    """Logits float32 [H, W, K]; its input is BGR less the mean, as its loader makes it."""
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    x = image[:, :, ::-1].astype(np.float64) - np.array(MEAN)
    x = torch.from_numpy(x.transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        return net(x)[0].permute(1, 2, 0).numpy()


def build(variant: str, widths: Mapping[int, int], rngs: nnx.Rngs) -> models.Segmenter:
    """Our network of that variant, as the FCN release has it."""
    backbone = {"name": "vgg16", "batch_norm": False, "border": "caffe", "dropout": 0.5}
    return models.build(
        backbone=backbone | {"width": widths[64], "fc_width": widths[4096]},
        head=VARIANTS[variant][1],
        aux=None,
        num_classes=K,
        dtype="float32",
        rngs=rngs,
    )


def run_ours(variant: str, widths: Mapping, weights: Mapping, images: list) -> list[np.ndarray]:
    """Logits float32 [H, W, K] of each image."""
    ours = functools.partial(build, variant, widths)
    trees = our_side.trees(ours, ORIGIN, weights)
    run = our_side.network(ours, importers.ORIGINS[ORIGIN].preprocess)
    return [np.asarray(run(trees, image)[0]) for image in images]


def compare(variant: str, widths: Mapping, weights: Mapping, images: list, expected: list) -> dict:
    """Largest difference over all pixels by size, and the spread of the logits."""
    rows = {}
    for size, a, b in zip(SIZES, run_ours(variant, widths, weights, images), expected, strict=True):
        largest = float(np.abs(b).max())
        rows[f"{size[0]} x {size[1]}"] = {
            "relative_error": our_side.error(a, b),
            "largest": largest,
            "spread": float(b.std((0, 1)).min()) / largest,
        }
    return rows


def shares(net: torch.nn.Module, weights: Mapping, images: list, expected: list) -> dict:
    """Largest relative change of the logits without each score layer, the least of all images."""
    found = {}
    for layer in sorted({name.split(".")[0] for name in weights if name.startswith("score")}):
        without = {n: 0 * w if n.startswith(f"{layer}.") else w for n, w in weights.items()}
        found[layer] = min(
            our_side.error(run_oracle(net, without, image), logits)
            for image, logits in zip(images, expected, strict=True)
        )
    return found


def write_fixtures(variant: str, weights: Mapping, images: list, expected: list) -> None:
    """shared.npz: images, trunk, score_fr; VARIANT.npz: its other layers and its logits."""
    FIXTURES.mkdir(parents=True, exist_ok=True)
    names = [f"{height}x{width}" for height, width in SIZES]
    shared = {n: w for n, w in weights.items() if not n.startswith(("score_pool", "upscore"))}
    own = {n: w for n, w in weights.items() if n not in shared}
    shared |= {f"image_{name}": image for name, image in zip(names, images, strict=True)}
    own |= {f"logits_{n}": e[::EVERY, ::EVERY] for n, e in zip(names, expected, strict=True)}
    np.savez_compressed(FIXTURES / "shared.npz", **shared)
    np.savez_compressed(FIXTURES / f"{variant}.npz", **own)


def write_page(measured: Mapping, given: argparse.Namespace) -> None:
    """fcn.json and fcn.md beside this file."""
    command = "python -m experiments.parity.fcn --oracle=DIR --oracle-commit=HASH --hardware=TEXT"
    about = {
        "oracle": f"github.com/wkentaro/pytorch-fcn at {given.oracle_commit[:7]}"
    } | pages.circumstances(command, given.hardware, torch=torch.__version__)
    report.write("fcn", about, measured, page(measured))


def page(measured: Mapping) -> list[str]:
    """The page's title, and the paragraphs behind the command."""
    layers = ("score_fr", "score_pool4", "score_pool3")
    sizes = [f"{height} x {width}" for height, width in SIZES]
    errors = [
        [variant, width, *(f"{found['sizes'][size]['relative_error']:.1e}" for size in sizes)]
        for width, variants in (("4 / 24", measured["narrow"]), ("64 / 4096", measured["full"]))
        for variant, found in variants.items()
    ]
    shares = [
        [
            variant,
            *(f"{found['shares'][n]:.2f}" if n in found["shares"] else "" for n in layers),
            f"{min(found['sizes'][size]['spread'] for size in sizes):.3f}",
        ]
        for variant, found in measured["narrow"].items()
    ]
    return [
        "# FCN against pytorch-fcn",
        "Both networks have the same random weights, score layers included, and see the same "
        "images in float32. The table gives the largest difference of their logits over all pixels "
        f"and {K} classes, relative to the largest logit (allowed: {TOLERANCE:.0e}); the second "
        "column is width / fc width:",
        pages.table(["net", "width", *sizes], errors),
        "The tests repeat the narrow rows without torch, from every third pixel of the oracle's "
        "logits in `tests/fixtures/fcn`. To show that every part counts, the next table gives the "
        "largest change of the narrow networks' logits where a score layer is set to zero, and the "
        "smallest standard deviation of a class over an image, both relative to the largest logit, "
        "at the size where they are least:",
        pages.table(["net", *layers, "spread"], shares),
        "At once, the drawn weights of the skips are 100 and 10,000 times larger (to a power of "
        "two), so that their factors do not hide them.",
    ]


if __name__ == "__main__":
    main()

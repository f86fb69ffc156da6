"""Our side of `protocols.py`: fused probabilities, their errors, and the page of them.

The tests ask for the same errors; nothing here needs torch or tensorflow.
"""

import datetime
import functools
import json
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parity import atrous_nets, common, nets, protocols
from segjax.evaluation import steps
from segjax.evaluation.fusion import MultiView
from segjax.evaluation.protocol import parse
from segjax.models import functional, importers
from segjax.models.features import Scores
from segjax.models.preprocess import Preprocess
from segjax.models.resize import Resize
from segjax.runs import run_folder

TOLERANCE = 1e-4  # of a probability


def fixture(name: str) -> dict[str, np.ndarray]:
    """What the other side said: every `protocols.EVERY`th pixel of its probabilities."""
    with np.load(protocols.FIXTURES / f"{name}.npz") as file:
        return dict(file)


def fused(network, placed, text: str, image: np.ndarray, mean=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Fused probabilities, float32 [H, W, K], of a network with its weights under a protocol."""
    judge = functools.partial(steps.judge, num_classes=protocols.K, class_weights=None)
    how = MultiView(
        network, judge, parse(text), seen=lambda size: size, mean=mean, num_classes=protocols.K,
        batch_size=4, devices=jax.devices()[:1],
    )  # fmt: skip
    batch = {"image": image[None], "weight": np.ones(1, np.float32)}
    return how.scores(how.weights(*placed), batch)[0]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """max|a - b| of the pixels that were kept."""
    return float(np.abs(found[:: protocols.EVERY, :: protocols.EVERY] - expected).max())


@functools.cache
def pspnet():
    """(network, weights, mean) of the narrow PSPNet that semseg's tool was run with."""
    net = atrous_nets.NETS["pspnet50"]
    recipes = json.loads(str(fixture("semseg")["recipes"]))
    drawn = {n: common.draw(n, common.Recipe(*recipe)) for n, recipe in recipes.items()}
    build = net.build(nets.DIVISOR, protocols.K)
    preprocess = Preprocess(**importers.ORIGINS[net.origin].preprocess)
    _, graph = functional.graphs(build)
    network = functools.partial(steps.network, graph=graph, preprocess=preprocess)
    return network, common.trees(build, net.origin, drawn), preprocess.mean


def semseg_tool(size: tuple[int, int]) -> float:
    """Error of `pspnet_ms_flip` with PSPNet."""
    network, placed, mean = pspnet()
    tile, long_side = protocols.SEMSEG["crop"], protocols.SEMSEG["base_size"]
    text = f"pspnet_ms_flip, tile={tile}, long_side={long_side}"
    found = fused(network, placed, text, protocols.draw_image(size), mean)
    return error(found, fixture("semseg")["{}x{}".format(*size)])


def around(params, _, image: jax.Array) -> Scores:
    """The random network that the other side was run around."""
    stride = protocols.STRIDE
    values = jax.lax.conv_general_dilated(
        image - 110, params, (stride, stride), ((4, 4), (4, 4)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
    )  # fmt: skip
    return Scores(4 * jnp.tanh(values), Resize("corners"))


def semseg_whole(size: tuple[int, int]) -> float:
    """Error of `deeplab_v3_ms_flip` under semseg's conventions, around the random network."""
    text = (
        "deeplab_v3_ms_flip, size='round', resize='half_pixel', softmax='before_resize', "
        f"meet='image', long_side={max(size)}"
    )
    placed = jnp.asarray(protocols.kernel()), {}
    found = fused(around, placed, text, protocols.draw_image(size))
    return error(found, fixture("semseg")["whole {}x{}".format(*size)])


def deeplab_release(size: tuple[int, int]) -> float:
    """Error of `deeplab_v3_ms_flip` as it is, around the random network."""
    placed = jnp.asarray(protocols.kernel()), {}
    found = fused(around, placed, "deeplab_v3_ms_flip", protocols.draw_image(size))
    return error(found, fixture("deeplab")["{}x{}".format(*size)])


CASES = {
    "`pspnet_ms_flip`, PSPNet-50 narrowed; semseg's `test`": (
        semseg_tool, protocols.SEMSEG["sizes"],
    ),
    "`deeplab_v3_ms_flip` with semseg's conventions, a random network; its `scale_process`": (
        semseg_whole, protocols.WHOLE_SIZES,
    ),
    "`deeplab_v3_ms_flip`, a random network; DeepLab's `predict_labels_multi_scale`": (
        deeplab_release, protocols.DEEPLAB_SIZES,
    ),
}  # fmt: skip


def write(checkout: str, hardware: str) -> None:
    """experiments/parity/protocols.md."""
    commit = subprocess.run(
        ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()  # fmt: skip
    software = ", ".join(f"{k} {v}" for k, v in run_folder.versions().items() if "device" not in k)
    rows = [
        f"| {name} | {height} x {width} | {run((height, width)):.1e} |"
        for name, (run, sizes) in CASES.items()
        for height, width in sizes
    ]
    tile = "{} x {}".format(*protocols.SEMSEG["crop"])
    text = [
        "# Evaluation protocols against upstream code",
        'Written by `python -m experiments.parity.protocols --semseg=DIR --hardware="..."`; '
        "DeepLab's fixture by `--deeplab=DIR` before it.",
        f"{hardware}; {datetime.date.today()}; {software}; semseg {commit or 'as released'}.",
        "Largest difference of a fused probability, six scales and flips; windows of "
        f"{tile}, long side {protocols.SEMSEG['base_size']}. Bound: {TOLERANCE:.0e}.",
        "| protocol, network; upstream | image | max\\|a - b\\| |\n|---|---|---|\n"
        + "\n".join(rows),
    ]
    path = pathlib.Path(__file__).with_name("protocols.md")
    path.write_text("\n\n".join(text) + "\n")
    print(path.read_text())

"""Our side of `protocols.py`: fused probabilities, their errors, and the page of them.

The tests compute the same errors; nothing here needs torch or tensorflow.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.parity import atrous_nets, drawn, nets, our_side, protocol_cases
from experiments.shared import pages
from segjax.evaluation import views
from segjax.evaluation.fusion import MultiView
from segjax.evaluation.steps import Judge
from segjax.models import functional, importers
from segjax.models.features import Scores
from segjax.models.preprocess import Preprocess
from segjax.models.resize import Resize
from segjax.network import Model, Network

TOLERANCE = 1e-4  # of a probability
COMMAND = 'python -m experiments.parity.protocols --semseg=DIR --hardware="..."'


def fixture(name: str) -> dict[str, np.ndarray]:
    """The other side's probabilities: every `protocol_cases.EVERY`th pixel."""
    with np.load(protocol_cases.FIXTURES / f"{name}.npz") as file:
        return dict(file)


def fused(network: Network, text: str, image: np.ndarray) -> np.ndarray:
    """Fused probabilities, float32 [H, W, K], of a network under a protocol."""
    look = MultiView(
        network.model,
        Judge(()),
        views.parse(text),
        mean=network.model.preprocess.mean,
        batch_size=4,
        devices=jax.devices()[:1],
    )
    batch = {"image": image[None], "weight": np.ones(1, np.float32)}
    return look.scores(look.placed(network), batch)[0]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """max|a - b| of the pixels that were kept."""
    return float(np.abs(found[:: protocol_cases.EVERY, :: protocol_cases.EVERY] - expected).max())


def _model(build: functional.Build, preprocess: Preprocess) -> Model:
    return Model(
        options={},
        dtype="float32",
        num_classes=protocol_cases.K,
        classes=None,
        preprocess=preprocess,
        input_scale=1.0,
        input_size=(0, 0),
        seed=0,
        graphs=functional.graphs(build),
    )


@functools.cache
def pspnet() -> Network:
    """The narrow PSPNet that semseg's tool was run with."""
    net = atrous_nets.NETS["pspnet50"]
    recipes = json.loads(str(fixture("semseg")["recipes"]))
    weights = {n: drawn.draw(n, drawn.Recipe(*recipe)) for n, recipe in recipes.items()}
    build = net.build(nets.DIVISOR, protocol_cases.K)
    preprocess = Preprocess(**importers.ORIGINS[net.origin].preprocess)
    trees = our_side.trees(build, net.origin, weights)
    return Network(*trees, _model(build, preprocess))


class Around(nnx.Module):
    """The random network that the other side was run around: one convolution and a tanh."""

    def __init__(self, *, rngs: nnx.Rngs):
        del rngs  # nothing is drawn
        self.kernel = nnx.Param(jnp.asarray(protocol_cases.kernel()))

    def __call__(self, x: jax.Array, image: jax.Array | None = None) -> tuple[Scores]:
        """[B, H, W, 3] -> the Scores of a map of stride `protocol_cases.STRIDE`."""
        stride = protocol_cases.STRIDE
        values = jax.lax.conv_general_dilated(
            x - 110,
            self.kernel[...],
            (stride, stride),
            ((4, 4), (4, 4)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return (Scores(4 * jnp.tanh(values), Resize("corners")),)


@functools.cache
def around() -> Network:
    """`Around` as a network that sees RGB of 0 to 255."""

    def build(rngs):
        return Around(rngs=rngs)

    preprocess = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), bgr=False)
    return Network(*functional.initial_arrays(build, 0), _model(build, preprocess))


def semseg_tool(size: tuple[int, int]) -> float:
    """Error of `pspnet_ms_flip` with PSPNet."""
    tile, long_side = protocol_cases.SEMSEG["crop"], protocol_cases.SEMSEG["base_size"]
    text = f"pspnet_ms_flip, tile={tile}, long_side={long_side}"
    found = fused(pspnet(), text, protocol_cases.draw_image(size))
    return error(found, fixture("semseg")["{}x{}".format(*size)])


def semseg_whole(size: tuple[int, int]) -> float:
    """Error of `deeplab_v3_ms_flip` under semseg's conventions, around the random network."""
    text = (
        "deeplab_v3_ms_flip, size='round', resize='half_pixel', softmax='before_resize', "
        f"meet='image', long_side={max(size)}"
    )
    found = fused(around(), text, protocol_cases.draw_image(size))
    return error(found, fixture("semseg")["whole {}x{}".format(*size)])


def deeplab_release(size: tuple[int, int]) -> float:
    """Error of `deeplab_v3_ms_flip` as it is, around the random network."""
    found = fused(around(), "deeplab_v3_ms_flip", protocol_cases.draw_image(size))
    return error(found, fixture("deeplab")["{}x{}".format(*size)])


CASES = {
    "`pspnet_ms_flip`, PSPNet-50 narrowed; semseg's `test`": (
        semseg_tool, protocol_cases.SEMSEG["sizes"],
    ),
    "`deeplab_v3_ms_flip` with semseg's conventions, a random network; its `scale_process`": (
        semseg_whole, protocol_cases.WHOLE_SIZES,
    ),
    "`deeplab_v3_ms_flip`, a random network; DeepLab's `predict_labels_multi_scale`": (
        deeplab_release, protocol_cases.DEEPLAB_SIZES,
    ),
}  # fmt: skip


def write(checkout: str, hardware: str) -> None:
    """Writes protocols.md beside this file."""
    rows = [
        [name, f"{height} x {width}", f"{run((height, width)):.1e}"]
        for name, (run, sizes) in CASES.items()
        for height, width in sizes
    ]
    tile = "{} x {}".format(*protocol_cases.SEMSEG["crop"])
    about = pages.circumstances(COMMAND, hardware)
    parts = [
        "# Evaluation protocols against upstream code",
        f"Written by `{COMMAND}`; DeepLab's fixture by `--deeplab=DIR` before it.",
        f"{hardware}; {about['date']}; {pages.software(about['versions'], device=False)}; "
        f"semseg {pages.commit(checkout)}.",
        "Largest difference of a fused probability, six scales and flips; windows of "
        f"{tile}, long side {protocol_cases.SEMSEG['base_size']}. Bound: {TOLERANCE:.0e}.",
        pages.table(["protocol, network; upstream", "image", "max\\|a - b\\|"], rows),
    ]
    path = pathlib.Path(__file__).with_name("protocols.md")
    pages.write(path, parts)
    print(path.read_text())

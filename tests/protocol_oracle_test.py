"""Presets against the code that published numbers were made with.

Its probabilities lie in fixtures; see experiments/parity/protocols.py, which makes them.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import atrous_nets, common, protocols
from segjax import state, steps
from segjax.models import weights
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.views_test import batch_of, made

TOLERANCE = 1e-4


def fixture(name: str) -> dict[str, np.ndarray]:
    with np.load(protocols.FIXTURES / f"{name}.npz") as file:
        return dict(file)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    found = found[:: protocols.EVERY, :: protocols.EVERY]
    return float(np.abs(found - expected).max())


@pytest.fixture(scope="module")
def pspnet():
    """fn(image) -> fused probabilities of the narrow PSPNet under its preset, by semseg's sizes."""
    net = atrous_nets.NETS["pspnet50"]
    recipes = json.loads(str(fixture("semseg")["recipes"]))
    drawn = {n: common.draw(n, common.Recipe(*recipe)) for n, recipe in recipes.items()}
    build = net.build(atrous_nets.DIVISOR, protocols.K)
    _, graph = state.graphs(build)
    origin = weights.ORIGINS[net.origin]
    preprocess = steps.Preprocess(**origin.preprocess)
    network = functools.partial(steps.network, graph=graph, preprocess=preprocess)
    tile, long = protocols.SEMSEG["crop"], protocols.SEMSEG["base_size"]
    text = f"pspnet_ms_flip, tile={tile}, long_side={long}"
    how = made(network, text, batch_size=4, classes=protocols.K, mean=preprocess.mean)
    placed = how.weights(*common.trees(build, net.origin, drawn))
    return lambda image: how.scores(placed, batch_of(image))[0]


@pytest.mark.parametrize("size", protocols.SEMSEG["sizes"])
def test_pspnet_ms_flip_is_semsegs_test_tool(pspnet, size):
    expected = fixture("semseg")["{}x{}".format(*size)]
    assert expected.max() > 0.5  # it says something
    assert error(pspnet(protocols.draw_image(size)), expected) <= TOLERANCE


def around(params, _, image: jax.Array) -> Scores:
    """The random network that DeepLab's code was run around."""
    stride = protocols.STRIDE
    values = jax.lax.conv_general_dilated(
        image - 110, params, (stride, stride), ((4, 4), (4, 4)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
    )  # fmt: skip
    return Scores(4 * jnp.tanh(values), Resize("corners"))


@pytest.mark.parametrize("size", protocols.DEEPLAB_SIZES)
def test_deeplab_v3_ms_flip_is_the_releases_evaluation(size):
    image, kernel = protocols.draw_image(size), jnp.asarray(protocols.kernel())
    how = made(around, "deeplab_v3_ms_flip", classes=protocols.K)
    found = how.scores(how.weights(kernel, {}), batch_of(image))[0]
    assert error(found, fixture("deeplab")["{}x{}".format(*size)]) <= TOLERANCE


@pytest.mark.parametrize("size", protocols.WHOLE_SIZES)
def test_deeplab_v3_ms_flip_under_semsegs_conventions_is_its_test_tool(size):
    text = (
        f"deeplab_v3_ms_flip, size='round', resize='half_pixel', softmax='before_resize', "
        f"meet='image', long_side={max(size)}"
    )
    how = made(around, text, classes=protocols.K)
    found = how.scores(
        how.weights(jnp.asarray(protocols.kernel()), {}), batch_of(protocols.draw_image(size))
    )
    assert error(found[0], fixture("semseg")["whole {}x{}".format(*size)]) <= TOLERANCE

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import sharding
from segjax.models import convolution
from segjax.models.depthwise import _at_once, _row_by_row, depthwise
from tests import tiny

WINDOWS = [  # (height, width, stride, dilation)
    (8, 9, 1, 1),
    (8, 9, 2, 1),
    (9, 7, 2, 1),
    (9, 7, 1, 4),
    (3, 9, 1, 4),
    (1, 1, 2, 1),
]


def drawn(height, width, stride, dilation, batch: int = 2) -> tuple:
    """Random x, kernel and cotangent, and the options (stride, dilation, pads)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, height, width, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 5)).astype(np.float32)
    size = (batch, -(-height // stride), -(-width // stride), 5)
    pads = convolution.pads_of("tf", x, 3, stride, dilation)
    return x, kernel, rng.normal(size=size).astype(np.float32), (stride, dilation, pads)


def one_by_one(x, kernel, stride, dilation, pads):
    """A depthwise convolution as one convolution for each channel."""
    parts = [
        convolution.conv_form(x[..., c : c + 1], kernel[..., c : c + 1], stride, dilation, pads)
        for c in range(x.shape[-1])
    ]
    return jnp.concatenate(parts, axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 4))
def with_gradients(form, x, kernel, cotangent, options):
    value, pull = jax.vjp(lambda x, kernel: form(x, kernel, *options), x, kernel)
    return dict(zip(("value", "x", "kernel"), (value, *pull(cotangent)), strict=True))


@pytest.mark.parametrize("window", WINDOWS)
def test_it_convolves_each_channel_by_itself_in_value_and_gradients(window):
    arguments = drawn(*window)
    tiny.assert_close(
        with_gradients(depthwise, *arguments), with_gradients(one_by_one, *arguments), bound=4e-6
    )


@pytest.mark.parametrize("window", WINDOWS)
def test_both_forms_of_the_kernel_s_gradient_agree(window):
    x, _, cotangent, options = drawn(*window)
    found = [form(x, cotangent, 3, *options) for form in (_at_once, _row_by_row)]
    tiny.assert_close(*found, bound=4e-6)


def test_height_split_over_devices_gives_the_result_of_one_device():
    *arrays, options = drawn(16, 12, 1, 1, batch=4)
    mesh = sharding.make_mesh(2, jax.devices()[:4])
    rows, whole = NamedSharding(mesh, P("data", "space")), NamedSharding(mesh, P())
    spread = map(jax.device_put, arrays, (rows, whole, rows))
    got = with_gradients(depthwise, *spread, options)
    tiny.assert_close(got, jax.device_get(with_gradients(depthwise, *arrays, options)))


def test_gradients_of_bfloat16_are_summed_in_float32():
    """A sum of ones in bfloat16 would stop at 256, where adding one changes nothing."""
    x, kernel = jnp.ones((2, 40, 40, 3), jnp.bfloat16), jnp.ones((3, 3, 1, 3), jnp.bfloat16)
    got = with_gradients(depthwise, x, kernel, x, (1, 1, ((1, 1), (1, 1))))["kernel"]
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got[1, 1].astype(float), 2 * 40 * 40, rtol=0.005)


def test_the_form_is_chosen_by_the_platform():
    *arrays, options = drawn(8, 9, 1, 1)
    traced = with_gradients.trace(depthwise, *arrays, options)
    for platform, count in (("cpu", 0), ("cuda", 2), ("tpu", 2)):  # forward, and back to x
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution") == count, platform

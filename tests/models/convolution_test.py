import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from segjax import sharding
from segjax.models import convolution, winograd
from tests import tiny

# (batch, height, width, C, K, padding): odd, smaller than a tile, than the kernel, cropped after.
SHAPES = [
    (2, 9, 11, 5, 6, 1),
    (1, 1, 1, 3, 4, 1),
    (2, 2, 3, 4, 3, 2),
    (1, 5, 4, 3, 2, 0),
    (1, 2, 2, 2, 3, 7),
    (2, 24, 23, 64, 64, 1),
]
WIDE = SHAPES[-1]  # tiles are chosen


def drawn(batch, height, width, features_in, features, padding) -> tuple[np.ndarray, ...]:
    """An input with the sign of a ReLU's, a kernel and a cotangent, float32."""
    rng = np.random.default_rng(0)
    out = (batch, height + 2 * padding - 2, width + 2 * padding - 2, features)
    shapes = ((batch, height, width, features_in), (3, 3, features_in, features), out)
    x, kernel, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return np.maximum(x, 0), kernel, cotangent


def by_numpy(x, kernel, cotangent, padding) -> dict[str, np.ndarray]:
    """The value and both gradients, in float64."""
    x, kernel, cotangent = (np.asarray(a, np.float64) for a in (x, kernel, cotangent))
    height, width = cotangent.shape[1:3]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    value, of_x, of_kernel = np.zeros(cotangent.shape), np.zeros_like(x), np.zeros_like(kernel)
    for i, j in np.ndindex(3, 3):
        window = np.s_[:, i : i + height, j : j + width]
        value += x[window] @ kernel[i, j]
        of_x[window] += cotangent @ kernel[i, j].T
        of_kernel[i, j] = np.tensordot(x[window], cotangent, ([0, 1, 2], [0, 1, 2]))
    border = slice(padding, -padding or None)
    return {"value": value, "x": of_x[:, border, border], "kernel": of_kernel}


def found(x, kernel, cotangent, padding) -> dict[str, jax.Array]:
    """The value and both gradients of `conv_3x3`, compiled as for users."""

    @functools.partial(jax.jit, compiler_options=tiny.OPTIMISED)
    def run(x, kernel, cotangent):
        form = functools.partial(convolution.conv_3x3, padding=padding)
        value, pull = jax.vjp(form, x, kernel)
        return dict(zip(("value", "x", "kernel"), (value, *pull(cotangent)), strict=True))

    return run(x, kernel, cotangent)


@pytest.mark.parametrize("shape", SHAPES)
def test_tiles_give_the_convolution_and_its_gradients(shape):
    x, kernel, cotangent = drawn(*shape)
    padding = shape[-1]

    @jax.jit
    def by_tiles(x, kernel, cotangent):
        mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
        return {
            "value": winograd.convolve(x, kernel, padding),
            "x": winograd.convolve(cotangent, mirrored, 2 - padding),
            "kernel": winograd.kernel_gradient(x, cotangent, padding),
        }

    tiny.assert_close(
        by_tiles(x, kernel, cotangent), by_numpy(x, kernel, cotangent, padding), bound=4e-6
    )


@pytest.mark.parametrize("shape", [*SHAPES, (8, 6, 7, 64, 32, 1), (8, 6, 7, 32, 64, 1)])
def test_a_3x3_convolution_is_exact_in_value_and_gradients(shape):
    x, kernel, cotangent = drawn(*shape)
    expected = by_numpy(x, kernel, cotangent, shape[-1])
    tiny.assert_close(found(x, kernel, cotangent, shape[-1]), expected, bound=4e-6)


@pytest.mark.parametrize("height", [24, 29, 52])
def test_blocks_of_rows_give_the_same_as_one_block(monkeypatch, height):
    """A height of 29 leaves padding in the last block."""
    x, kernel, cotangent = drawn(2, height, 9, 4, 5, 1)
    expected = by_numpy(x, kernel, cotangent, 1)
    blocks = []
    for size in (winograd._BLOCK, 36 * 9 * 6 * 2):  # two rows of 3 tiles, twice, 9 features
        monkeypatch.setattr(winograd, "_BLOCK", size)
        blocks.append(winograd._blocks(x, kernel.shape, 1)[1])
        got = {  # functools.partial: no program of the previous size is reused
            "value": jax.jit(functools.partial(winograd.convolve, padding=1))(x, kernel),
            "kernel": jax.jit(functools.partial(winograd.kernel_gradient, padding=1))(x, cotangent),
        }
        tiny.assert_close(got, {name: expected[name] for name in got})
    assert blocks[0] == 1
    assert blocks[1] >= 3


def test_gradients_of_bfloat16_are_summed_in_float32():
    """A sum of ones in bfloat16 would stop at 256, where adding one changes nothing."""
    x = jnp.ones((2, 40, 40, 64), jnp.bfloat16)
    got = found(x, jnp.ones((3, 3, 64, 64), jnp.bfloat16), x, 1)
    assert {name: array.dtype for name, array in got.items()} == dict.fromkeys(got, jnp.bfloat16)
    np.testing.assert_allclose(got["kernel"][1, 1].astype(float), 2 * 40 * 40, rtol=0.005)
    np.testing.assert_allclose(got["value"][:, 1:-1, 1:-1].astype(float), 9 * 64, rtol=0.005)
    np.testing.assert_allclose(got["x"][:, 1:-1, 1:-1].astype(float), 9 * 64, rtol=0.005)


def test_float64_is_not_rounded():
    x, kernel, cotangent = drawn(*WIDE)
    with jax.enable_x64(True):
        got = found(*(jnp.asarray(a, jnp.float64) for a in (x, kernel, cotangent)), 1)
        tiny.assert_close(got, by_numpy(x, kernel, cotangent, 1), bound=1e-12)


def test_only_cpu_uses_tiles_and_accelerators_use_the_convolution():
    x, kernel, cotangent = map(jnp.asarray, drawn(*WIDE))

    @jax.jit
    def step(x, kernel):
        form = functools.partial(convolution.conv_3x3, padding=1)
        value, pull = jax.vjp(form, x, kernel)
        return value, pull(cotangent)

    traced = step.trace(x, kernel)
    for platform, form, other in (
        ("cpu", "dot_general", "convolution"),
        ("cuda", "convolution", "dot_general"),
        ("tpu", "convolution", "dot_general"),
    ):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count(f"stablehlo.{form}") >= 3, platform
        assert f"stablehlo.{other}" not in text, platform


def test_an_unused_gradient_of_the_image_is_not_computed():
    x, kernel, cotangent = map(jnp.asarray, drawn(*WIDE))
    form = functools.partial(convolution.conv_3x3, padding=1)

    def flops(wanted: slice) -> float:
        def pull(x, kernel):
            return jax.vjp(form, x, kernel)[1](cotangent)[wanted]

        return jax.jit(pull).lower(x, kernel).compile().cost_analysis()["flops"]

    assert flops(np.s_[1:]) < 0.7 * flops(np.s_[:])


@pytest.mark.parametrize("size", [0, winograd._BLOCK])
def test_height_split_over_devices_gives_the_result_of_one_device(monkeypatch, size):
    monkeypatch.setattr(winograd, "_BLOCK", size)  # 0: two blocks of rows
    arrays = drawn(2, 32, 15, 64, 64, 1)
    assert winograd._blocks(arrays[0], arrays[1].shape, 1)[1] == (2 if size == 0 else 1)
    mesh = sharding.make_mesh(4)
    rows, whole = NamedSharding(mesh, P("data", "space")), NamedSharding(mesh, P())
    spread = map(jax.device_put, arrays, (rows, whole, rows))
    tiny.assert_close(found(*spread, 1), jax.device_get(found(*arrays, 1)))


# (height, width, kernel, stride, dilation, pads): dead taps, asymmetric borders, grids.
WINDOWS = [
    (9, 11, 1, 1, 1, 0),
    (9, 10, 1, 2, 1, 0),
    (9, 11, 3, 2, 1, 1),
    (8, 10, 3, 2, 1, "tf"),
    (9, 11, 7, 2, 1, 3),
    (1, 1, 7, 2, 1, 3),
    (9, 14, 3, 1, 2, 2),
    (9, 14, 3, 1, 4, 4),
    (14, 18, 3, 1, 12, 12),  # outer taps see little
    (5, 20, 3, 1, 6, 6),  # taps above and below see only padding
    (5, 4, 3, 1, 6, 6),
    (13, 14, 4, 1, 4, 6),
    (3, 40, 4, 1, 8, 12),
    (12, 9, 3, 1, 2, 1),
    (3, 4, 7, 1, 1, 3),
]


@pytest.mark.parametrize("channels", [(3, 4), (64, 64)])
@pytest.mark.parametrize("window", WINDOWS)
def test_any_convolution_equals_xla_s_in_value_and_gradients(window, channels):
    height, width, size, stride, dilation, padding = window
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)
    windows = {"stride": stride, "dilation": dilation}
    pads = convolution.pads_of(padding, x, size, **windows)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(form, x, kernel):
        value, pull = jax.vjp(functools.partial(form, **windows, pads=pads), x, kernel)
        cotangent = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return dict(zip(("value", "x", "kernel"), (value, *pull(cotangent)), strict=True))

    with jax.enable_x64(True):
        expected = with_gradients(convolution.conv_form, x.astype(float), kernel.astype(float))
    tiny.assert_close(with_gradients(convolution.convolve, x, kernel), expected, bound=4e-6)


def test_taps_that_see_only_padding_are_not_computed():
    x, kernel = jnp.zeros((1, 8, 8, 16)), jnp.zeros((3, 3, 16, 16))

    def flops(dilation: int) -> float:
        pads = ((dilation, dilation),) * 2
        form = functools.partial(convolution.convolve, dilation=dilation, pads=pads)
        return jax.jit(form).lower(x, kernel).compile().cost_analysis()["flops"]

    one_tap = 2 * 8 * 8 * 16 * 16
    assert flops(8) == one_tap
    # Padding inside the other taps' windows is skipped, too: (1 + 2 x 2 / 8)^2 of 9 taps remain.
    assert 2.25 * one_tap <= flops(6) < 3 * one_tap
    assert flops(1) > 7 * one_tap


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_tensorflow_s_padding_gives_its_sizes_with_the_odd_zero_at_the_end(size, stride, kernel):
    ((before, after), _) = convolution.pads_of("tf", jnp.zeros((1, size, 9, 1)), kernel, stride, 1)
    assert 0 <= after - before <= 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)
    if after:  # one zero less would not suffice
        assert (size + before + after - 1 - kernel) // stride + 1 < -(-size // stride)


@pytest.mark.parametrize("size", [(7, 7), (10, 8)])
def test_both_forms_of_the_large_convolution_agree(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    kernel = rng.normal(size=(7, 7, 3, 4)).astype(np.float32)

    def with_gradients(form):
        value, pull = jax.vjp(form, x, kernel)
        return value, pull(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))

    forms = (convolution.conv_form, convolution.matmul_form)
    tiny.assert_close(*(jax.jit(with_gradients, static_argnums=0)(form) for form in forms))

"""Depthwise convolutions in the form that is fastest on the device that runs them.

XLA:CPU computes them in a naive loop, 6 to 40 times slower than the sum over shifted copies that
replaces it there (experiments/benchmarks/convolutions). The kernel's gradient is a plain sum on
every device: XLA uses a convolution grouped by batch, whose result is wrong by a per cent if an
image's height is split over devices (jaxlib 0.10.2; the test of a step on several devices shows
it).
"""

import functools

import jax
import jax.numpy as jnp

from segjax.models.convolution import DIMENSIONS, Pads, by_rows


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """Convolves each channel by itself: [B, H, W, C], [k, k, 1, C] -> [B, h, w, C].

    Args:
        x: the map.
        kernel: the weights.
        stride, dilation: steps between windows and between taps.
        pads: zeros around the map.
    """
    return by_rows(_depthwise, x, kernel, stride, dilation, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise(x, kernel, stride: int, dilation: int, pads: Pads) -> jax.Array:
    cpu = functools.partial(_shifted, stride=stride, dilation=dilation, pads=pads)
    default = functools.partial(_grouped, stride=stride, dilation=dilation, pads=pads)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _grouped(x, kernel, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """XLA's convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


def _shifted(x, kernel, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """A sum over shifted copies."""
    x = _padded(x, pads)
    rows, cols = _windows(x, kernel.shape[0], stride, dilation)
    taps = kernel.reshape(-1, kernel.shape[-1])
    parts = (x[:, row, col] for row in rows for col in cols)
    return sum(part * tap for part, tap in zip(parts, taps, strict=True))


def _padded(x: jax.Array, pads: Pads) -> jax.Array:
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))


def _windows(padded: jax.Array, size: int, stride: int, dilation: int) -> list[list[slice]]:
    """The rows that each tap reads, and the columns."""
    reach = (size - 1) * dilation
    return [
        [slice(k * dilation, length - reach + k * dilation, stride) for k in range(size)]
        for length in padded.shape[1:3]
    ]


def _forward(x, kernel, stride, dilation, pads):
    return _depthwise(x, kernel, stride, dilation, pads), (x, kernel)


def _backward(stride, dilation, pads, kept, cotangent):
    x, kernel = kept
    options = {"stride": stride, "dilation": dilation, "pads": pads}

    def x_gradient(form):
        def pull(x, kernel, cotangent):
            return jax.vjp(lambda x: form(x, kernel, **options), x)[1](cotangent)[0]

        return pull

    size = kernel.shape[0]
    sums = {
        name: functools.partial(form, size=size, **options)
        for name, form in (("cpu", _row_by_row), ("default", _at_once))
    }
    kernel_gradient = jax.lax.platform_dependent(x, cotangent, **sums)
    return (
        jax.lax.platform_dependent(
            x, kernel, cotangent, cpu=x_gradient(_shifted), default=x_gradient(_grouped)
        ),
        kernel_gradient.astype(kernel.dtype),
    )


_depthwise.defvjp(_forward, _backward)


def _at_once(x, cotangent, size: int, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """The kernel's gradient with one sum for every tap: float32 [k, k, 1, C]."""
    x, cotangent = _padded(x, pads).astype(jnp.float32), cotangent.astype(jnp.float32)
    rows, cols = _windows(x, size, stride, dilation)
    taps = [jnp.sum(x[:, row, col] * cotangent, axis=(0, 1, 2)) for row in rows for col in cols]
    return jnp.stack(taps).reshape(size, size, 1, -1)


def _row_by_row(x, cotangent, size: int, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """`_at_once` with sums over single rows, which stay in a CPU's cache."""
    x = _padded(x, pads)
    height, _, features = cotangent.shape[1:]
    _, cols = _windows(x, size, stride, dilation)

    def row_of(array, image, row):
        start = (image, row, 0, 0)
        line = jax.lax.dynamic_slice(array, start, (1, 1, *array.shape[2:]))
        return line[0, 0].astype(jnp.float32)

    def products(number):
        image, row = number // height, number % height
        output = row_of(cotangent, image, row)
        inputs = [row_of(x, image, row * stride + i * dilation) for i in range(size)]
        return [line[col] * output for line in inputs for col in cols]

    def body(sums, number):
        return [total + part for total, part in zip(sums, products(number), strict=True)], None

    sums, _ = jax.lax.scan(body, products(0), jnp.arange(1, x.shape[0] * height))
    return jnp.stack([total.sum(0) for total in sums]).reshape(size, size, 1, features)

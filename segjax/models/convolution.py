"""Convolutions in the form that is fastest on the device that runs them.

Accelerators use XLA's convolution. XLA:CPU has weak spots: the weight gradient of a 3 x 3
convolution (up to twenty times slower than the forward pass), dilations, and kernels about as large
as the map. Matrix products replace it there: over shifted copies (im2col), or over Winograd's
tiles, which also multiply less. A dilated convolution is split into the grids that it does not mix;
if its taps read much padding, it is a sum over taps that skips the padding. The choice is made when
the program is lowered, so one trace serves every device; experiments/benchmarks/convolutions has
the times.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from segjax import arrays, strips
from segjax.arrays import Size
from segjax.models import winograd

Pads = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after the rows, and before and after the columns; below 0: a crop."""

Padding = int | Literal["tf"]
"""Zeros on each side, or TensorFlow's SAME: see `pads_of`."""

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
"""Axes of maps, kernels and results, for `jax.lax.conv_general_dilated`."""


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    dilation: int = 1,
    pads: Pads = ((0, 0), (0, 0)),
) -> jax.Array:
    """Convolution with a square kernel, in the form that is fastest on its device.

    Taps that read only padding are dropped: on a map smaller than its rate, a 3 x 3 atrous
    convolution becomes a 1 x 1 convolution.

    Args:
        x: [B, H, W, C], the map.
        kernel: [k, k, C, K], the weights.
        stride: step between windows.
        dilation: step between the taps of a window.
        pads: zeros around the map.

    Returns:
        [B, (H + pads - (k - 1) dilation - 1) // stride + 1, ..., K].
    """
    kernel, pads = _live_taps(x, kernel, stride, dilation, pads)
    return by_rows(_convolved, x, kernel, stride, dilation, pads)


def by_rows(
    form: Callable[..., jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    dilation: int,
    pads: Pads,
) -> jax.Array:
    """`form(x, kernel, stride, dilation, pads)`, a convolution, on strips where there are any."""
    reach = (kernel.shape[0] - 1) * dilation + 1
    if strips.count() == 1 or (reach == stride == 1 and pads[0] == (0, 0)):
        return form(x, kernel, stride, dilation, pads)

    def of_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return form(x, kernel, stride, dilation, ((0, 0), pads[1]))

    rows = (x.shape[1] + sum(pads[0]) - reach) // stride + 1
    result: jax.Array = strips.windows(
        of_rows, x, kernel, reach=reach, rows=rows, stride=stride, before=pads[0][0]
    )
    return result


def _convolved(x, kernel, stride: int, dilation: int, pads: Pads) -> jax.Array:
    sides = {kernel.shape[0], kernel.shape[1]}
    symmetric = len({*pads[0], *pads[1]}) == 1
    if sides == {3} and stride == 1 and symmetric and dilation in (1, pads[0][0]):
        return conv_3x3(x, kernel, pads[0][0], dilation)
    return conv_any(x, kernel, stride, dilation, pads)


def pads_of(padding: Padding, x: jax.Array, kernel: int, stride: int, dilation: int) -> Pads:
    """The padding of a convolution of [B, H, W, C] with a square kernel.

    Args:
        padding: zeros on each side; or "tf": TensorFlow's SAME, for a result of ceil(H / stride)
            rows. TensorFlow puts an odd zero at the end: a feature's place depends on the size.
        x: the map.
        kernel: side of the kernel.
        stride, dilation: steps between windows and between taps.
    """
    if padding != "tf":
        return ((padding, padding),) * 2
    reach = (kernel - 1) * dilation + 1
    totals = [max(0, (-(-size // stride) - 1) * stride + reach - size) for size in x.shape[1:3]]
    rows, cols = ((total // 2, total - total // 2) for total in totals)
    return rows, cols


def _live_taps(x, kernel, stride: int, dilation: int, given: Pads) -> tuple[jax.Array, Pads]:
    """The kernel without the outer taps that read only padding, and its padding."""
    window, pads = [], []
    for size, taps, (before, after) in zip(x.shape[1:3], kernel.shape[:2], given, strict=True):
        count = (size + before + after - (taps - 1) * dilation - 1) // stride + 1
        starts = [tap * dilation - before for tap in range(taps)]
        seen = [
            tap
            for tap, start in enumerate(starts)
            if any(0 <= start + stride * i < size for i in range(count))
        ]
        first, last = (seen[0], seen[-1]) if seen else (0, 0)
        window.append(slice(first, last + 1))
        after = starts[last] + stride * (count - 1) - size + 1
        # Fewer unread entries than a stride change no size: a crop would be a copy.
        pads.append((-starts[first], 0 if -stride < after < 0 else after))
    rows, cols = pads
    live = kernel[*window]
    if live.shape != kernel.shape:
        # The TPU compiler of libtpu 0.0.42 dies when it fuses this slice with a convolution.
        live = jax.lax.optimization_barrier(live)
    return live, (rows, cols)


def conv_form(
    x: jax.Array, kernel: jax.Array, stride: int = 1, dilation: int = 1, pads: Pads = ((0, 0),) * 2
) -> jax.Array:
    """XLA's convolution: [B, H, W, C], [k, l, C, K] -> [B, h, w, K]."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSIONS,
    )


def matmul_form(x: jax.Array, kernel: jax.Array, pads: Pads = ((0, 0),) * 2) -> jax.Array:
    """`conv_form` without stride and dilation, as one product over k x l shifted copies of x."""
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))
    rows, cols = (
        [slice(tap, x.shape[axis] - (taps - 1 - tap)) for tap in range(taps)]
        for axis, taps in zip((1, 2), kernel.shape, strict=False)
    )
    shifted = [x[:, row, col] for row in rows for col in cols]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def overlap_form(
    x: jax.Array, kernel: jax.Array, dilation: int = 1, pads: Pads = ((0, 0),) * 2
) -> jax.Array:
    """`conv_form` without stride, as a sum over the taps that skips what lies in the padding."""
    sizes = [
        n + sum(pad) - (taps - 1) * dilation
        for n, pad, taps in zip(x.shape[1:3], pads, kernel.shape, strict=False)
    ]
    dtype = jnp.promote_types(x.dtype, jnp.float32)  # type of the sum
    total = jnp.zeros((x.shape[0], *sizes, kernel.shape[-1]), dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            here, there = [], []
            for n, size, (before, _), tap in zip(x.shape[1:3], sizes, pads, (i, j), strict=True):
                shift = tap * dilation - before
                first, last = max(0, -shift), min(size, n - shift)
                here.append((first, size - max(first, last), 0))
                there.append(slice(first + shift, max(first, last) + shift))
            part = jnp.matmul(x[:, *there], kernel[i, j], preferred_element_type=dtype)
            total += jax.lax.pad(part, jnp.zeros((), dtype), ((0, 0, 0), *here, (0, 0, 0)))
    return total.astype(x.dtype)


# With this derivative rule the backward pass keeps only x and the kernel (not the copies, nor both
# branches of the choice) and chooses its form by device again.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_any(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, pads: Pads) -> jax.Array:
    """Any convolution, its form chosen by device: [B, H, W, C], [k, l, C, K] -> [B, h, w, K]."""
    cpu, default = _forms(x, kernel, stride, dilation, pads)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _forms(x, kernel, stride: int, dilation: int, pads: Pads):
    """The functions (x, kernel) -> result for CPU and for other devices."""
    default = functools.partial(conv_form, stride=stride, dilation=dilation, pads=pads)
    if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        return (lambda x, kernel: x[:, ::stride, ::stride] @ kernel[0, 0]), default
    large = 2 * max(kernel.shape[:2]) >= min(x.shape[1:3])
    if stride == 1 and dilation > 1:
        return functools.partial(overlap_form, dilation=dilation, pads=pads), default
    if stride == 1 and large:
        return functools.partial(matmul_form, pads=pads), default
    return default, default


def _any_forward(x, kernel, stride, dilation, pads):
    return conv_any(x, kernel, stride, dilation, pads), (x, kernel)


def _any_backward(stride, dilation, pads, kept, cotangent):
    def pull(form):
        return lambda x, kernel, cotangent: jax.vjp(form, x, kernel)[1](cotangent)

    x, kernel = kept
    cpu, default = map(pull, _forms(x, kernel, stride, dilation, pads))
    return jax.lax.platform_dependent(x, kernel, cotangent, cpu=cpu, default=default)


conv_any.defvjp(_any_forward, _any_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_3x3(x: jax.Array, kernel: jax.Array, padding: int, dilation: int = 1) -> jax.Array:
    """3 x 3 convolution of stride 1, its form chosen by device.

    [B, H, W, C], [3, 3, C, K] -> [B, H + 2 padding - 2 dilation, ..., K]. A dilation above 1 needs
    a padding of the same number.
    """
    default = functools.partial(_plain, padding=padding, dilation=dilation)
    cpu = functools.partial(_convolve_on_cpu, padding=padding, dilation=dilation)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _plain(x, kernel, padding: int, dilation: int) -> jax.Array:
    return conv_form(x, kernel, 1, dilation, ((padding, padding),) * 2)


def _conv_3x3_forward(x, kernel, padding, dilation):
    return conv_3x3(x, kernel, padding, dilation), (x, kernel)


def _conv_3x3_backward(padding, dilation, kept, cotangent):
    def x_gradient(x, kernel, cotangent):
        return jax.vjp(lambda x: _plain(x, kernel, padding, dilation), x)[1](cotangent)[0]

    def x_gradient_on_cpu(x, kernel, cotangent):
        del x
        mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
        return _convolve_on_cpu(cotangent, mirrored, 2 * dilation - padding, dilation)

    def kernel_gradient(x, kernel, cotangent):
        return jax.vjp(lambda k: _plain(x, k, padding, dilation), kernel)[1](cotangent)[0]

    def kernel_gradient_on_cpu(x, kernel, cotangent):
        if _sees_little(x, dilation):
            form = functools.partial(_overlapping, x, dilation=dilation)
            return jax.vjp(form, kernel)[1](cotangent)[0]
        if dilation > 1:
            x, cotangent = (_to_grids(a, dilation) for a in (x, cotangent))
        if _pays(x, kernel, least_features=32):
            gradient = winograd.kernel_gradient(x, cotangent, padding // dilation)
            return gradient.astype(kernel.dtype)
        form = functools.partial(_plain, x, padding=padding // dilation, dilation=1)
        return jax.vjp(form, kernel)[1](cotangent)[0]

    # One choice for each gradient: XLA drops the gradient of the image, which nothing uses.
    arguments = (*kept, cotangent)
    return (
        jax.lax.platform_dependent(*arguments, cpu=x_gradient_on_cpu, default=x_gradient),
        jax.lax.platform_dependent(*arguments, cpu=kernel_gradient_on_cpu, default=kernel_gradient),
    )


conv_3x3.defvjp(_conv_3x3_forward, _conv_3x3_backward)


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: int, dilation: int) -> jax.Array:
    if _sees_little(x, dilation):
        return _overlapping(x, kernel, dilation)
    if dilation > 1:
        size = arrays.map_size(x)
        y = _convolve_on_cpu(_to_grids(x, dilation), kernel, 1, 1)
        return _from_grids(y, dilation, size)
    if _pays(x, kernel, least_features=64):
        return winograd.convolve(x, kernel, padding)
    return _plain(x, kernel, padding, 1)


def _overlapping(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    return overlap_form(x, kernel, dilation, ((dilation, dilation),) * 2)


def _sees_little(x: jax.Array, dilation: int) -> bool:
    """Whether a dilated 3 x 3 convolution reads so much padding that a sum over taps is faster.

    Measured: the sum is faster if 0.7 of the products or fewer read the map; at 0.84 grids are.
    """
    shares = [(1 + 2 * max(0, n - dilation) / n) / 3 for n in x.shape[1:3]]
    return dilation > 1 and math.prod(shares) < 0.75


def _to_grids(x: jax.Array, rate: int) -> jax.Array:
    """The rate x rate grids that an atrous convolution does not mix: [B, H, W, C] -> [B r r, ...].

    Grids are padded to equal sizes with zeros, as the border is.
    """
    batch, height, width, features = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % rate), (0, -width % rate), (0, 0)))
    tall, wide = x.shape[1] // rate, x.shape[2] // rate
    x = x.reshape(batch, tall, rate, wide, rate, features).transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(-1, tall, wide, features)


def _from_grids(x: jax.Array, rate: int, size: Size) -> jax.Array:
    """The inverse of `_to_grids`."""
    tall, wide, features = x.shape[1:]
    x = x.reshape(-1, rate, rate, tall, wide, features).transpose(0, 3, 1, 4, 2, 5)
    return x.reshape(-1, tall * rate, wide * rate, features)[:, : size[0], : size[1]]


def _pays(x: jax.Array, kernel: jax.Array, least_features: int) -> bool:
    """Whether Winograd's tiles are faster than XLA's convolution, as measured on two AVX2 cores.

    With few features, transforming the tiles takes longer than it saves; with few pixels,
    transforming the kernel does. Tiles compute in float32, so float64 goes without them.
    """
    pixels = math.prod(x.shape[:3])
    narrow = min(kernel.shape[2:]) < least_features
    return not narrow and pixels >= 256 and x.dtype != jnp.float64

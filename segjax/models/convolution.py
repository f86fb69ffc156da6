"""Stride-1 convolutions in the form that is fastest where the program runs.

Accelerators get XLA's own convolution. XLA:CPU has two weak spots: the weight gradient of a 3 x 3
convolution (up to twenty times slower than the forward) and kernels larger than the map (a naive
loop). There, matrix products take its place: over shifted copies (im2col), or over Winograd's
tiles, which also multiply less. The choice is made when the program is lowered, so one trace serves
every device.
"""

import functools
import math

import jax
import jax.numpy as jnp

from segjax.models import winograd

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv_form(x: jax.Array, kernel: jax.Array, padding: int = 0) -> jax.Array:
    """XLA's convolution: [B, H, W, C], [k, k, C, K] -> [B, H + 2 padding - k + 1, ..., K]."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((padding, padding),) * 2, dimension_numbers=_DIMENSIONS
    )


def matmul_form(x: jax.Array, kernel: jax.Array, padding: int = 0) -> jax.Array:
    """The same as one matrix product over the k x k shifted copies of x."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    shifted = [x[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


# Its own derivative rule, so that only x and the kernel are kept for the way back (not the k x k
# copies, nor both branches of the choice), and the way back chooses by device again.
@jax.custom_vjp
def large(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """k x k on a small map, no padding: [B, H, W, C], [k, k, C, K] -> [B, H - k + 1, ..., K].

    On CPU one matrix product over shifted copies: XLA's convolution falls to a naive loop when the
    kernel is larger than the map (2 to 200 times slower, measured).
    """
    return jax.lax.platform_dependent(x, kernel, cpu=matmul_form, default=conv_form)


def _large_forward(x, kernel):
    return large(x, kernel), (x, kernel)


def _large_backward(kept, cotangent):
    def pull(form):
        return lambda x, kernel, cotangent: jax.vjp(form, x, kernel)[1](cotangent)

    return jax.lax.platform_dependent(
        *kept, cotangent, cpu=pull(matmul_form), default=pull(conv_form)
    )


large.defvjp(_large_forward, _large_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_3x3(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """[B, H, W, C], [3, 3, C, K] -> [B, H + 2 padding - 2, W + 2 padding - 2, K]."""
    default = functools.partial(conv_form, padding=padding)
    cpu = functools.partial(_convolve_on_cpu, padding=padding)
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def _conv_3x3_forward(x, kernel, padding):
    return conv_3x3(x, kernel, padding), (x, kernel)


def _conv_3x3_backward(padding, kept, cotangent):
    def of_x(x, kernel, cotangent):
        return jax.vjp(lambda x: conv_form(x, kernel, padding), x)[1](cotangent)[0]

    def of_x_on_cpu(x, kernel, cotangent):
        del x
        mirrored = kernel[::-1, ::-1].swapaxes(2, 3)
        return _convolve_on_cpu(cotangent, mirrored, 2 - padding)

    def of_kernel(x, kernel, cotangent):
        return jax.vjp(lambda kernel: conv_form(x, kernel, padding), kernel)[1](cotangent)[0]

    def of_kernel_on_cpu(x, kernel, cotangent):
        if _pays(x, kernel, least_features=32):
            return winograd.kernel_gradient(x, cotangent, padding).astype(kernel.dtype)
        return of_kernel(x, kernel, cotangent)

    # Two choices: the gradient of an image is not wanted, and is then not computed.
    arguments = (*kept, cotangent)
    return (
        jax.lax.platform_dependent(*arguments, cpu=of_x_on_cpu, default=of_x),
        jax.lax.platform_dependent(*arguments, cpu=of_kernel_on_cpu, default=of_kernel),
    )


conv_3x3.defvjp(_conv_3x3_forward, _conv_3x3_backward)


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    if _pays(x, kernel, least_features=64):
        return winograd.convolve(x, kernel, padding)
    return conv_form(x, kernel, padding)


def _pays(x: jax.Array, kernel: jax.Array, least_features: int) -> bool:
    """Whether tiles are faster than XLA's convolution: measured on two AVX2 cores.

    Few features: transforming the tiles takes longer than it saves. Few pixels: so does
    transforming the kernel. Tiles are computed in float32.
    """
    pixels = math.prod(x.shape[:3])
    narrow = min(kernel.shape[2:]) < least_features
    return not narrow and pixels >= 256 and x.dtype != jnp.float64

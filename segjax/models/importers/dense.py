"""Kernels of other libraries in segjax's layout, [k, k, C, K], and dense layers as convolutions.

Long, Shelhamer, Darrell 2015, section 3.1: a fully connected layer on a map of k x k x C is a
convolution whose kernel covers the map. Its weights are in the order in which a library flattens.

An array of an unexpected shape is returned unchanged: `importers.match` reports it.
"""

import numpy as np


def from_oihw(kernel: np.ndarray) -> np.ndarray:
    """A kernel of PyTorch or Caffe: [K, C, k, k] -> [k, k, C, K]."""
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel


def from_ohwi(kernel: np.ndarray) -> np.ndarray:
    """A kernel of TensorFlow Lite or caffejs: [K, k, k, C] -> [k, k, C, K]."""
    return kernel.transpose(1, 2, 3, 0) if kernel.ndim == 4 else kernel


def chw_to_conv(weight: np.ndarray, size: int) -> np.ndarray:
    """A dense layer of PyTorch or Caffe, which flatten channels first, as a convolution.

    [K, C size size] or, already a convolution, [K, C, size, size] -> [size, size, C, K].
    """
    if weight.ndim == 2 and weight.shape[1] % size**2 == 0:
        weight = weight.reshape(weight.shape[0], -1, size, size)
    return from_oihw(weight)


def hwc_to_conv(weight: np.ndarray, size: int) -> np.ndarray:
    """A dense layer of Keras, which flattens channels last, as a convolution.

    [size size C, K] -> [size, size, C, K].
    """
    if weight.ndim == 2 and weight.shape[0] % size**2 == 0:
        return weight.reshape(size, size, -1, weight.shape[1])
    return weight

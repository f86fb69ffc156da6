"""Kernels of other libraries in our layout, [k, k, C, K]; a dense layer as a convolution.

Long, Shelhamer, Darrell 2015, section 3.1: a fully connected layer on a map of k x k x C is a
convolution whose kernel covers it. Its weights stand in the order in which the library flattens.

An array that cannot be turned comes back as it is: it fits nowhere, and `weights.match` says so.
"""

import numpy as np


def from_oihw(kernel: np.ndarray) -> np.ndarray:
    """PyTorch, Caffe: [K, C, k, k] -> [k, k, C, K]."""
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel


def from_ohwi(kernel: np.ndarray) -> np.ndarray:
    """TensorFlow Lite, CaffeJS: [K, k, k, C] -> [k, k, C, K]."""
    return kernel.transpose(1, 2, 3, 0) if kernel.ndim == 4 else kernel


def chw_to_conv(weight: np.ndarray, size: int) -> np.ndarray:
    """PyTorch, Caffe: [K, C size size], channels flattened first -> [size, size, C, K].

    [K, C, size, size], a convolution already, is turned as one.
    """
    if weight.ndim == 2 and weight.shape[1] % size**2 == 0:
        weight = weight.reshape(weight.shape[0], -1, size, size)
    return from_oihw(weight)


def hwc_to_conv(weight: np.ndarray, size: int) -> np.ndarray:
    """Keras: [size size C, K], channels flattened last -> [size, size, C, K]."""
    if weight.ndim == 2 and weight.shape[0] % size**2 == 0:
        return weight.reshape(size, size, -1, weight.shape[1])
    return weight

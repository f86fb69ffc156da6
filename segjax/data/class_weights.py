"""Class weights of the loss, computed from the pixel counts of a scan."""

import numpy as np

from segjax.data.scan import Scan
from segjax.errors import choose

EFFECTIVE_NUMBER_BETA = 1 - 1e-6
"""Beta of `effective_number`: beyond about a million, more pixels of a class add nothing new."""


KNOWN = ("none", "median_frequency", "inverse", "effective_number")
"""Names of class weights."""


def by_name(name: str, scan: Scan) -> np.ndarray | None:
    """Loss weights by the name of their rule: float32 [K], or None for "none".

    "median_frequency": see `median_frequency`. "inverse": 1 / pixels. "effective_number":
    (1 - beta) / (1 - beta^pixels) (Cui et al., CVPR 2019, section 4, with pixels for samples). The
    last two have mean 1 over the classes that occur; a class that does not occur has weight 0.

    Raises:
        InputError: if the name is none of these.
    """
    choose("config.loss.class_weights", name, KNOWN)
    if name == "none":
        return None
    if name == "median_frequency":
        return median_frequency(scan)
    present = scan.pixels > 0
    pixels = scan.pixels[present].astype(np.float64)
    if name == "inverse":
        values = 1 / pixels
    else:
        # expm1 keeps the digits that 1 - beta^n loses for rare classes.
        values = 1 / -np.expm1(pixels * np.log(EFFECTIVE_NUMBER_BETA))
    weights = np.zeros(len(scan.pixels), np.float32)
    weights[present] = values / values.mean() if len(values) else values
    return weights


def median_frequency(scan: Scan) -> np.ndarray:
    """Median frequency balancing: float32 [K], median of the frequencies / frequency.

    frequency(c) = pixels of c / pixels with truth in the images where c occurs. The median is taken
    over the classes that occur (Eigen & Fergus, ICCV 2015, section 6.3.2; SegNet, PAMI 2017,
    section 3). A class that does not occur has weight 0: no pixel could ever use it.
    """
    present = scan.pixels > 0
    frequency = scan.pixels[present] / scan.image_pixels[present]
    weights = np.zeros(len(scan.pixels), np.float32)
    if present.any():
        weights[present] = np.median(frequency) / frequency
    return weights

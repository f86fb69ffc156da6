"""Cells of tables from the evaluations that `segjax.evaluate` stores in a run folder."""

import pathlib
from collections.abc import Mapping

import numpy as np

from segjax.metrics import bootstrap


def marginals(path: pathlib.Path) -> np.ndarray:
    """Each image's counts from the .npz beside eval-*.json: int64 [n, 3, K], by images' names."""
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        return arrays["marginals"][np.argsort(arrays["names"])]


def miou(fields: Mapping) -> str:
    """mIoU in per cent with its interval."""
    interval = fields["miou_interval"]
    return (
        f"**{100 * fields['scores']['miou']:.2f}** "
        f"({100 * interval['low']:.2f} to {100 * interval['high']:.2f})"
    )


def gain(path: pathlib.Path, base: np.ndarray) -> str:
    """Difference in mIoU to the `marginals` of another evaluation of the same images."""
    found, _ = bootstrap.differences(marginals(path), base)
    return f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def other_scores(fields: Mapping) -> list[str]:
    """Pixel accuracy, boundary F1, Boundary IoU and calibration error, in per cent."""
    shares = (
        fields["scores"]["pixel_accuracy"],
        fields["boundary_f1"]["mean"],
        fields["boundary_iou"]["mean"],
        fields["scores"]["ece"],
    )
    return [f"{100 * share:.2f}" for share in shares]

"""Picture of the worst images of an evaluation."""

import numpy as np

from segjax.data.sources import Source
from segjax.data.spec import DatasetSpec
from segjax.evaluation.kept_labels import Reader
from segjax.evaluation.result import Result
from segjax.metrics import confusion
from segjax.pictures import label_maps

WORST = 20
"""Number of images in the picture."""


def worst(result: Result, keep: int = WORST) -> list[tuple[float, int]]:
    """(mIoU, data set index) of the images of all processes with the lowest mIoU, lowest first.

    Equal images are in the order of the data set; images without a labelled pixel have no mIoU.
    """
    scores = confusion.miou(result.marginals)
    ranked = sorted(zip(scores.tolist(), result.index.tolist(), strict=True))
    return [(score, index) for score, index in ranked if not np.isnan(score)][:keep]


def draw(
    result: Result, source: Source, labels: Reader, spec: DatasetSpec, keep: int = WORST
) -> np.ndarray | None:
    """The picture uint8 [H, W, 3], worst image first; None without images.

    Args:
        result: result of the evaluation.
        source: the split.
        labels: label maps of the evaluation.
        spec: data set spec.
        keep: number of images.
    """
    captions, rows = [], []
    for score, index in worst(result, keep):
        name = source.name(index)
        captions.append(f"{name}: mIoU {100 * score:.1f}")
        rows.append((*source[index], labels[name]))
    return label_maps.panel(rows, spec, captions=captions) if rows else None

"""The values of --save: which files predict writes of each photograph."""

import pathlib
from collections.abc import Collection

from segjax import files
from segjax.data import sources
from segjax.errors import InputError, choose

LABELS, IDS, OVERLAY, CRF, UNCERTAINTY = "labels", "ids", "overlay", "crf", "uncertainty"
HEATMAPS = "heatmaps"
BOUNDARIES, MEAN = "boundaries", "mean"

OF_NETWORKS = (LABELS, IDS, OVERLAY, CRF, UNCERTAINTY, HEATMAPS)
OF_METHODS = (LABELS, BOUNDARIES, MEAN)

ENDINGS = {
    LABELS: (".png",),
    IDS: (".png",),
    OVERLAY: ("_overlay.png",),
    CRF: ("_crf.png",),
    UNCERTAINTY: ("_uncertainty.npy", "_uncertainty.png"),
    HEATMAPS: (".png", "_argmax.png", "_heatmaps.png", "_heatmaps.npz"),
    BOUNDARIES: ("_boundaries.png",),
    MEAN: ("_mean.png",),
}
"""Value -> what follows a photograph's name in the names of its files."""


def parse(text: str, known: Collection[str]) -> frozenset[str]:
    """The values in a comma list; none for "", which stands for the default.

    Raises:
        InputError: on one that is not known, heatmaps beside others, or labels beside ids.
    """
    values = frozenset(filter(None, (word.strip() for word in text.split(","))))
    for value in sorted(values):
        choose("--save", value, known)
    if HEATMAPS in values and len(values) > 1:
        raise InputError("--save: heatmaps cannot be combined with other values.")
    if {LABELS, IDS} <= values:
        raise InputError("--save: labels and ids are both <name>.png; give one of them.")
    return values


def check_free(
    images: sources.Source,
    output: pathlib.Path,
    values: Collection[str],
    inputs: Collection[pathlib.Path],
    *,
    overwrite: bool,
) -> None:
    """Checks the files of all images, before any is written; see `files.check_free`."""
    names = [images.name(index) for index in range(len(images))]
    results = {
        f"{value} of {name}": [output / f"{name}{ending}" for ending in ENDINGS[value]]
        for name in names
        for value in sorted(values)
    }
    files.check_free(results, inputs=inputs, overwrite=overwrite)


def of_network(values: frozenset[str], *, crf: bool, samples: bool) -> frozenset[str]:
    """The outputs to save for a segmentation network: `values`, or the default.

    Args:
        values: result of `parse`, without heatmaps.
        crf: whether there is a CRF after the network.
        samples: whether the protocol takes several passes with dropout.

    Raises:
        InputError: if a value needs a CRF or dropout passes, and there are none.
    """
    if CRF in values and not crf:
        raise InputError("--save=crf needs a CRF behind the network: --crf=PRESET.")
    if UNCERTAINTY in values and not samples:
        raise InputError('--save=uncertainty needs several passes: --protocol="single, samples=8".')
    optional = {CRF: crf, UNCERTAINTY: samples}
    return values or frozenset(
        [LABELS, OVERLAY, *(name for name, there in optional.items() if there)]
    )


def told(values: frozenset[str], count: int) -> str:
    """Values and the number of images they were written of, for people."""
    known = dict.fromkeys([*OF_NETWORKS, *OF_METHODS])
    names = ", ".join(value for value in known if value in values)
    return f"{names} of {count} image{'' if count == 1 else 's'}"

"""Photographs labelled by a network: label images, overlays and more as files."""

import io
import pathlib

import numpy as np

from segjax import files
from segjax.data import png
from segjax.data.sources import Source
from segjax.data.spec import DatasetSpec
from segjax.photographs import saves
from segjax.pictures import label_maps, layout
from segjax.prediction import Labelled, Predictor
from segjax.runs import progress


def write(
    net: Predictor,
    images: Source,
    sizes: np.ndarray,
    output: pathlib.Path,
    values: frozenset[str] = frozenset(),
) -> None:
    """Labels images and writes what `values` name of each.

    labels: <name>.png, class indices with a palette. overlay: <name>_overlay.png. crf:
    <name>_crf.png, the labels before and after the CRF. uncertainty: <name>_uncertainty.npy,
    float32 [H, W], the variance of the softmax over passes averaged over classes, and a picture of
    it, 0 to its maximum.

    Args:
        net: the network and the protocol that it labels under.
        images: the source; its truth is not read.
        sizes: int32 [N, 2], of the images.
        output: folder.
        values: of `saves.OF_NETWORKS` without heatmaps; the default of `saves.of_network` if empty.

    Raises:
        InputError: if a value needs a CRF or samples that the protocol lacks.
    """
    protocol = net.protocol
    values = saves.of_network(
        values, crf=protocol.crf is not None, samples=protocol.views.samples > 0
    )
    line = progress.ProgressLine("image", len(images))
    for done, labelled in enumerate(net.labelled(images, sizes), 1):
        _write_image(labelled, output / images.name(labelled.index), net.spec, values)
        line.show(done)
    line.close()
    print(
        f"Written: {saves.told(values, len(images))} in {output} (step {net.step}, "
        f"programs compiled: {net.programs})."
    )


def _write_image(
    labelled: Labelled, start: pathlib.Path, spec: DatasetSpec, values: frozenset[str]
) -> None:
    """Writes the files of one image; `start` is their path up to what distinguishes them."""

    def path(end: str) -> pathlib.Path:
        return start.with_name(f"{start.name}{end}")

    image, label = labelled.image, labelled.label
    if saves.LABELS in values:
        files.write(path(".png"), png.encode_indices(label, [*spec.palette]))
    if saves.OVERLAY in values:
        layout.write_png(path("_overlay.png"), label_maps.overlay(image, label, spec))
    if saves.CRF in values and labelled.before is not None:
        picture = label_maps.before_after(image, labelled.before, label, spec)
        layout.write_png(path("_crf.png"), picture)
    variance = labelled.uncertainty
    if saves.UNCERTAINTY in values and variance is not None:
        buffer = io.BytesIO()
        np.save(buffer, variance)
        files.write(path("_uncertainty.npy"), buffer.getvalue())
        picture = label_maps.heat_map(variance, float(variance.max()))
        layout.write_png(path("_uncertainty.png"), picture)

"""Photographs labelled by a network: label images, overlays and more as files."""

import io
import pathlib
from collections.abc import Collection

import numpy as np

from segjax import files
from segjax.data import png, sources
from segjax.data.sources import Source
from segjax.data.spec import VOID, Color, DatasetSpec
from segjax.errors import InputError
from segjax.evaluation.protocol import EXACT, Protocol
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
    *,
    inputs: Collection[pathlib.Path] = (),
    overwrite: bool = False,
) -> None:
    """Labels images and writes what `values` name of each.

    labels: <name>.png, class indices with a palette. ids: <name>.png, the data set's raw ids with a
    palette, see `DatasetSpec.decode`. overlay: <name>_overlay.png. crf:
    <name>_crf.png, the labels before and after the CRF. uncertainty: <name>_uncertainty.npy,
    float32 [H, W], the variance of the softmax over passes averaged over classes, and a picture of
    it, 0 to its maximum.

    Args:
        net: the network and the protocol that it labels under.
        images: the source; its truth is not read.
        sizes: int32 [N, 2], of the images.
        output: folder.
        values: of `saves.OF_NETWORKS` without heatmaps; the default of `saves.of_network` if empty.
        inputs: files that are never written over.
        overwrite: whether other files may be.

    Raises:
        InputError: if a value needs a CRF, samples or ids that are not there, or if a file is.
    """
    protocol = net.protocol
    values = saves.of_network(
        values, crf=protocol.crf is not None, samples=protocol.views.samples > 0
    )
    if saves.IDS in values:
        _check_ids(net.spec)
    saves.check_free(images, output, values, inputs, overwrite=overwrite)
    line = progress.ProgressLine("image", len(images))
    for done, labelled in enumerate(net.labelled(images, sizes), 1):
        _write_image(labelled, output / images.name(labelled.index), net.spec, values)
        line.show(done)
    line.close()
    print(
        f"Written: {saves.told(values, len(images))} in {output} (step {net.step}, "
        f"{_filled(protocol)}, programs compiled: {net.programs})."
    )


def _filled(protocol: Protocol) -> str:
    """What the protocol does to the size of an image, for people."""
    if any(protocol.views.tile):
        return "in windows"
    if protocol.bucket == EXACT:
        return "each at its exact size"
    return f"sides filled up to multiples of {protocol.bucket}"


def _check_ids(spec: DatasetSpec) -> None:
    without = [name for i, name in enumerate(spec.classes) if i not in dict(spec.table).values()]
    if without:
        raise InputError(
            f"--save=ids: {spec.name} has no id for {sources.first_names(without)}; --save=labels "
            "writes class indices."
        )


def _id_colors(spec: DatasetSpec) -> list[Color]:
    """RGB of every raw id; black where there is none."""
    colors = {raw: spec.void_color if cls == VOID else spec.palette[cls] for raw, cls in spec.table}
    return [colors.get(raw, (0, 0, 0)) for raw in range(max(colors) + 1)]


def _write_image(
    labelled: Labelled, start: pathlib.Path, spec: DatasetSpec, values: frozenset[str]
) -> None:
    """Writes the files of one image; `start` is their path up to what distinguishes them."""

    def path(value: str, place: int = 0) -> pathlib.Path:
        return start.with_name(f"{start.name}{saves.ENDINGS[value][place]}")

    image, label = labelled.image, labelled.label
    if saves.LABELS in values:
        files.write(path(saves.LABELS), png.encode_indices(label, [*spec.palette]))
    if saves.IDS in values:
        files.write(path(saves.IDS), png.encode_indices(spec.decode(label), _id_colors(spec)))
    if saves.OVERLAY in values:
        layout.write_png(path(saves.OVERLAY), label_maps.overlay(image, label, spec))
    if saves.CRF in values and labelled.before is not None:
        picture = label_maps.before_after(image, labelled.before, label, spec)
        layout.write_png(path(saves.CRF), picture)
    variance = labelled.uncertainty
    if saves.UNCERTAINTY in values and variance is not None:
        buffer = io.BytesIO()
        np.save(buffer, variance)
        files.write(path(saves.UNCERTAINTY), buffer.getvalue())
        picture = label_maps.heat_map(variance, float(variance.max()))
        layout.write_png(path(saves.UNCERTAINTY, 1), picture)

"""Pictures of label maps: overlays, panels and contact sheets, RGB uint8 [H, W, 3]."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from segjax.data.spec import VOID, Color, DatasetSpec
from segjax.pictures import layout

_WRONG = (225, 25, 35)

_BETTER = (30, 170, 60)

_TEXT = 15  # pixels: the text of panels and sheets


def colorize(label: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """A label map in the colours of its classes: uint8 [H, W] -> uint8 [H, W, 3].

    Raises:
        ValueError: if a pixel is neither a class of `spec` nor VOID.
    """
    unknown = np.setdiff1d(label, [*range(spec.num_classes), VOID])
    if unknown.size:
        raise ValueError(
            f"The label map contains {unknown[0]}; {spec.name} allows classes 0 to "
            f"{spec.num_classes - 1} and VOID ({VOID})."
        )
    colors = np.empty((256, 3), np.uint8)
    colors[: spec.num_classes] = spec.palette
    colors[VOID] = spec.void_color
    picture: np.ndarray = colors[label]
    return picture


def overlay(
    image: np.ndarray, label: np.ndarray, spec: DatasetSpec, *, alpha: float = 0.5
) -> np.ndarray:
    """An image mixed with its class colours, with a legend: uint8 [H', W', 3].

    The image keeps its size and lies in the top left corner. The legend lists the classes that
    occur, the largest first, below the image or, for an upright image, beside it.

    Args:
        image: uint8 [H, W, 3]; other numbers of channels are allowed (`_rgb`).
        label: uint8 [H, W], classes and VOID.
        spec: names and colours of the classes.
        alpha: weight of the class colour, 0 (image only) to 1.
    """
    image = _rgb(image, label)
    color = colorize(label, spec)
    mixed = cv2.addWeighted(image, 1 - alpha, color, alpha, 0)
    edge = boundary(label)
    mixed[edge] = color[edge] // 2 + 127  # a light shade of the class colour
    height, width = label.shape
    size = int(np.clip(math.sqrt(height * width) / 30, 12, 72))
    counts = np.bincount(label.ravel(), minlength=256)
    present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    entries = [_entry(i, spec) for i in present]
    if height > 1.2 * width:
        return layout.join([mixed, layout.legend(entries, width=0, size=size)], axis=1)
    return layout.join([mixed, layout.legend(entries, width=width, size=size)], axis=0)


def panel(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    *,
    cell: int = 256,
    captions: Sequence[str] = (),
    before: Sequence[np.ndarray] = (),
    uncertainty: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """A table of examples with predictions and errors: uint8 [H', W', 3].

    Columns: image, truth, prediction and errors; with `before`, prediction and errors before the
    CRF precede those after it; with `uncertainty`, its heat map is the last column. Errors are red
    on the dimmed image, void is hatched.

    Args:
        rows: (image uint8 [H, W, 3], truth uint8 [H, W], prediction uint8 [H, W]) of any sizes;
            small ones are enlarged without smoothing, large ones reduced.
        spec: names and colours of the classes.
        cell: width of a column in pixels.
        captions: a line of text above each row; empty for none.
        before: prediction before the CRF for each row, uint8 [H, W]; empty for none.
        uncertainty: variance for each row, float [H, W], all on one scale; empty for none.
    """
    titles = ["image", "truth", "prediction", "errors"]
    if before:
        titles[2:] = ["before the CRF", "errors before", "after the CRF", "errors after"]
    most = max((float(x.max()) for x in uncertainty), default=0.0)
    if uncertainty:
        titles.append(f"variance, 0 to {most:.2g}")
    parts = [layout.join([layout.strip(title, cell, _TEXT) for title in titles], axis=1, gap=4)]
    height = _cell_height([truth for _, truth, _ in rows], cell)
    for i, (image, truth, prediction) in enumerate(rows):
        if captions:
            parts.append(layout.strip(captions[i], parts[0].shape[1], _TEXT))
        image = layout.fit(_rgb(image, truth, prediction), height, cell, cv2.INTER_AREA)
        truth = layout.fit(truth, height, cell, cv2.INTER_NEAREST_EXACT)
        prediction = layout.fit(prediction, height, cell, cv2.INTER_NEAREST_EXACT)
        labels = [layout.fit(before[i], height, cell, cv2.INTER_NEAREST_EXACT)] if before else []
        pictures = [image, colorize(truth, spec)]
        for label in (*labels, prediction):
            pictures += [colorize(label, spec), _errors(image, truth, label)]
        if uncertainty:
            heat = heat_map(uncertainty[i], most)
            pictures.append(layout.fit(heat, height, cell, cv2.INTER_AREA))
        parts.append(layout.join([layout.center(p, height, cell) for p in pictures], axis=1, gap=4))
    entries: list[tuple[str, Color | np.ndarray]] = [
        *(_entry(i, spec) for i in range(spec.num_classes)),
        _entry(VOID, spec),
        ("wrong", _WRONG),
        ("not counted", layout.hatching(_TEXT, _TEXT)),
    ]
    parts.append(layout.legend(entries, width=parts[0].shape[1], size=_TEXT))
    return layout.join(parts, axis=0, gap=4)


def before_after(
    image: np.ndarray, before: np.ndarray, after: np.ndarray, spec: DatasetSpec
) -> np.ndarray:
    """An image and its overlays before and after a CRF, side by side: uint8 [H', W', 3].

    Args:
        image: uint8 [H, W, 3].
        before, after: predictions, uint8 [H, W].
        spec: names and colours of the classes.
    """
    titled = []
    for title, picture in (
        ("image", image),
        ("before the CRF", overlay(image, before, spec)),
        ("after", overlay(image, after, spec)),
    ):
        strip = layout.strip(title, picture.shape[1], _TEXT)
        titled.append(layout.join([strip, picture], axis=0, gap=0))
    return layout.join(titled, axis=1, gap=4)


def disagreements(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    *,
    cell: int = 256,
) -> np.ndarray:
    """A table of the differences between two predictions: uint8 [H', W', 3].

    Columns: image, truth, A, B, and the labelled pixels where A and B differ: green if only A is
    right, red if only B is right, white if neither is.

    Args:
        rows: (caption, image uint8 [H, W, 3], truth, A and B uint8 [H, W]).
        spec: names and colours of the classes.
        cell: width of a column in pixels.
    """
    titles = ("image", "truth", "A", "B", "where they differ")
    parts = [layout.join([layout.strip(title, cell, _TEXT) for title in titles], axis=1, gap=4)]
    height = _cell_height([row[2] for row in rows], cell)
    for caption, image, *labels in rows:
        parts.append(layout.strip(caption, parts[0].shape[1], _TEXT))
        image = layout.fit(_rgb(image, *labels), height, cell, cv2.INTER_AREA)
        truth, a, b = (layout.fit(x, height, cell, cv2.INTER_NEAREST_EXACT) for x in labels)
        differ = (a != b) & (truth < spec.num_classes)
        marked = image // 3
        for mask, color in ((a == truth, _BETTER), (b == truth, _WRONG)):
            marked[differ & mask] = color
        marked[differ & (a != truth) & (b != truth)] = 255
        pictures = [image, *(colorize(x, spec) for x in (truth, a, b)), marked]
        parts.append(layout.join([layout.center(p, height, cell) for p in pictures], axis=1, gap=4))
    entries = [_entry(i, spec) for i in [*range(spec.num_classes), VOID]]
    entries += [("A alone right", _BETTER), ("B alone right", _WRONG), ("neither", (255,) * 3)]
    parts.append(layout.legend(entries, width=parts[0].shape[1], size=_TEXT))
    return layout.join(parts, axis=0, gap=4)


def contact_sheet(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    *,
    columns: int = 4,
    cell: int = 256,
) -> np.ndarray:
    """A sheet of images, each above its coloured label, with a legend: uint8 [H', W', 3].

    Args:
        pairs: (image uint8 [H, W, 3], label uint8 [H, W]) of any sizes.
        spec: names and colours of the classes.
        columns: pairs in a row.
        cell: width of a column in pixels.
    """
    height = _cell_height([label for _, label in pairs], cell)
    blocks = []
    for image, label in pairs:
        image = layout.fit(_rgb(image, label), height, cell, cv2.INTER_AREA)
        color = colorize(layout.fit(label, height, cell, cv2.INTER_NEAREST_EXACT), spec)
        blocks.append(
            layout.join([layout.center(p, height, cell) for p in (image, color)], axis=0, gap=2)
        )
    parts = [
        layout.join(blocks[i : i + columns], axis=1, gap=8) for i in range(0, len(blocks), columns)
    ]
    entries = [_entry(i, spec) for i in [*range(spec.num_classes), VOID]]
    width = parts[0].shape[1] if parts else columns * cell
    parts.append(layout.legend(entries, width=width, size=_TEXT))
    return layout.join(parts, axis=0, gap=8)


def heat_map(values: np.ndarray, most: float) -> np.ndarray:
    """A heat map, black over red to yellow: float [H, W], 0 to `most` -> uint8 [H, W, 3]."""
    share = np.clip(values / max(most, np.finfo(np.float32).tiny), 0, 1)
    heat = (255 * share).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1])


def _rgb(image: np.ndarray, *labels: np.ndarray) -> np.ndarray:
    """The image with three channels: the first three, or the first of one or two repeated.

    Raises:
        ValueError: if the image is not uint8 or differs in size from a label map.
    """
    for label in labels:
        if image.dtype != np.uint8 or image.shape[:2] != label.shape:
            raise ValueError(
                f"The image must be uint8 [H, W, C] and the labels [H, W], got {image.dtype} "
                f"{list(image.shape)} and {list(label.shape)}."
            )
    if image.ndim == 3 and image.shape[2] >= 3:
        return np.ascontiguousarray(image[..., :3])
    return np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)


def boundary(label: np.ndarray) -> np.ndarray:
    """Pixels at a change of label, thicker in large images: int [H, W] -> bool [H, W]."""
    edge = np.zeros(label.shape, np.uint8)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    thickness = 1 + min(label.shape) // 700
    return cv2.dilate(edge, np.ones((thickness, thickness), np.uint8)) > 0


def _errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The dimmed image with errors in red and void hatched: uint8 [H, W, 3]."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((60 + 0.45 * gray).astype(np.uint8)[..., None], 3, axis=2)
    picture[truth != prediction] = _WRONG
    void = truth == VOID
    picture[void] = layout.hatching(*truth.shape)[void]
    return picture


def _cell_height(labels: Sequence[np.ndarray], cell: int) -> int:
    """Cell height at which the median picture is as wide as its cell, within limits."""
    heights = [cell * height / width for height, width in (label.shape for label in labels)]
    return int(np.clip(round(np.median(heights or [cell])), min(cell, 48), 3 * cell // 2))


def _entry(index: int, spec: DatasetSpec) -> tuple[str, Color]:
    if index == VOID:
        return "void", spec.void_color
    return spec.classes[index], spec.palette[index]

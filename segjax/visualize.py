"""Pictures for people: overlays, panels, contact sheets, curves and charts. RGB uint8 throughout.

Pictures are drawn with OpenCV and its built-in font; only the two charts load matplotlib, through
its object interface, so that no window system and no global state is involved.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from segjax import drawing
from segjax.data.spec import VOID, Color, DatasetSpec
from segjax.errors import InputError

_WRONG = (225, 25, 35)
_TEXT = 15  # pixels: the text of panels and sheets

_CURVES = {  # title: (axis label, factor, scale, {event key: (name, colour)})
    "loss": ("loss (nats)", 1, "log", {"train/loss": ("train", "C0"), "eval/loss": ("eval", "C3")}),
    "scores": (
        "score (%)",
        100,
        "free",
        {
            "eval/miou": ("mIoU", "C0"),
            "eval/pixel_accuracy": ("pixel accuracy", "C2"),
            "eval/mean_accuracy": ("mean accuracy", "C1"),
        },
    ),
    "learning rate": ("learning rate", 1, "free", {"train/lr": ("", "C4")}),
    "throughput": ("images / s", 1, "zero", {"train/images_per_s": ("", "C2")}),
    "waiting for data": ("share of time (%)", 100, "zero", {"train/data_wait": ("", "C5")}),
    "gradient norm": ("global L2 norm", 1, "log", {"train/grad_norm": ("", "C7")}),
}


def encode_png(rgb: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG file."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"A picture is uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}.")
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a whole file or, whatever goes wrong, none of it; makes the folders above it.

    Raises:
        InputError: naming `path`, if the disk refuses.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror or error}.") from error


def write_png(path: str | os.PathLike, rgb: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as a PNG, in the way of `write_file`."""
    write_file(path, encode_png(rgb))


def colorize(label: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """Classes to colours, VOID to `spec.void_color`: uint8 [H, W] -> uint8 [H, W, 3].

    Raises:
        ValueError: if a pixel holds neither a class of `spec` nor VOID.
    """
    unknown = np.setdiff1d(label, [*range(spec.num_classes), VOID])
    if unknown.size:
        raise ValueError(
            f"A label holds {unknown[0]}; {spec.name} has classes 0 to {spec.num_classes - 1} "
            f"and VOID ({VOID})."
        )
    colors = np.empty((256, 3), np.uint8)
    colors[: spec.num_classes] = spec.palette
    colors[VOID] = spec.void_color
    return colors[label]


def overlay(
    image: np.ndarray, label: np.ndarray, spec: DatasetSpec, *, alpha: float = 0.5
) -> np.ndarray:
    """An image under its classes, with a legend: uint8 [H, W, 3], [H, W] -> uint8 [H', W', 3].

    The image keeps its pixels' size and lies in the top left corner; the legend, the classes that
    are there with the largest first, stands below it or, for an upright image, beside it.

    Args:
        image: uint8 [H, W, 3]; one channel or more than three are shown too (`_rgb`).
        label: uint8 [H, W], classes and VOID.
        spec: names and colours.
        alpha: weight of the class colour, 0 (image only) to 1.
    """
    image = _rgb(image, label)
    color = colorize(label, spec)
    mixed = cv2.addWeighted(image, 1 - alpha, color, alpha, 0)
    edge = boundary(label)
    mixed[edge] = color[edge] // 2 + 127  # light, and still of the class
    height, width = label.shape
    size = int(np.clip(math.sqrt(height * width) / 30, 12, 72))
    counts = np.bincount(label.ravel(), minlength=256)
    present = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    entries = [_entry(i, spec) for i in present]
    if height > 1.2 * width:
        return drawing.join([mixed, drawing.legend(entries, width=0, size=size)], axis=1)
    return drawing.join([mixed, drawing.legend(entries, width=width, size=size)], axis=0)


def panel(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    *,
    cell: int = 256,
) -> np.ndarray:
    """Examples side by side with their errors -> uint8 [H', W', 3].

    Columns: image, truth, prediction, errors. Errors are red on the dimmed image, void is hatched.

    Args:
        rows: (image uint8 [H, W, 3], truth uint8 [H, W], prediction uint8 [H, W]) of any sizes;
            small ones are enlarged without smoothing, large ones reduced.
        spec: names and colours.
        cell: width of a column in pixels.
    """
    titles = ("image", "truth", "prediction", "errors")
    parts = [drawing.join([drawing.strip(title, cell, _TEXT) for title in titles], axis=1, gap=4)]
    height = _cell_height([truth for _, truth, _ in rows], cell)
    for image, truth, prediction in rows:
        image = drawing.fit(_rgb(image, truth, prediction), height, cell, cv2.INTER_AREA)
        truth = drawing.fit(truth, height, cell, cv2.INTER_NEAREST_EXACT)
        prediction = drawing.fit(prediction, height, cell, cv2.INTER_NEAREST_EXACT)
        pictures = [
            image,
            colorize(truth, spec),
            colorize(prediction, spec),
            _errors(image, truth, prediction),
        ]
        parts.append(
            drawing.join([drawing.center(p, height, cell) for p in pictures], axis=1, gap=4)
        )
    entries = [_entry(i, spec) for i in range(spec.num_classes)]
    entries += [
        _entry(VOID, spec),
        ("wrong", _WRONG),
        ("not counted", drawing.hatching(_TEXT, _TEXT)),
    ]
    parts.append(drawing.legend(entries, width=parts[0].shape[1], size=_TEXT))
    return drawing.join(parts, axis=0, gap=4)


def contact_sheet(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    spec: DatasetSpec,
    *,
    columns: int = 4,
    cell: int = 256,
) -> np.ndarray:
    """Many images, each over its coloured label, and a legend of all classes -> uint8 [H', W', 3].

    Args:
        pairs: (image uint8 [H, W, 3], label uint8 [H, W]) of any sizes.
        spec: names and colours.
        columns: pairs in a row.
        cell: width of a column in pixels.
    """
    height = _cell_height([label for _, label in pairs], cell)
    blocks = []
    for image, label in pairs:
        image = drawing.fit(_rgb(image, label), height, cell, cv2.INTER_AREA)
        color = colorize(drawing.fit(label, height, cell, cv2.INTER_NEAREST_EXACT), spec)
        blocks.append(
            drawing.join([drawing.center(p, height, cell) for p in (image, color)], axis=0, gap=2)
        )
    parts = [
        drawing.join(blocks[i : i + columns], axis=1, gap=8) for i in range(0, len(blocks), columns)
    ]
    entries = [_entry(i, spec) for i in [*range(spec.num_classes), VOID]]
    width = parts[0].shape[1] if parts else columns * cell
    parts.append(drawing.legend(entries, width=width, size=_TEXT))
    return drawing.join(parts, axis=0, gap=8)


def curves(history: Sequence[dict], path: str | os.PathLike) -> None:
    """Draws a run's events as a PNG of small multiples against the step.

    Shown where there are events: loss (train raw and smoothed, eval), scores, learning rate,
    throughput, waiting for data, gradient norm; `_CURVES` lists the keys. The averaged model's
    `eval_ema/...` is dashed. Values that are not finite leave a gap; a quantity that spans more
    than two decades gets a logarithmic axis, so that one spike does not flatten the rest.

    Args:
        history: events as `tracking.read_metrics` returns them.
        path: of the PNG, written as by `write_file`.
    """
    from matplotlib import figure as mpl_figure

    found = []
    for title, (unit, factor, scale, keys) in _CURVES.items():
        lines = [
            (style, f"{name}{note}", color, *_series(history, key.replace("eval/", folder), factor))
            for key, (name, color) in keys.items()
            for folder, note, style in (("eval/", "", "o-"), ("eval_ema/", ", EMA", "s--"))
            if folder == "eval/" or key.startswith("eval/")
        ]
        lines = [line for line in lines if line[3].size]
        if lines:
            found.append((title, unit, scale, lines))
    columns = min(3, max(1, len(found)))
    rows = max(1, math.ceil(len(found) / columns))
    figure = mpl_figure.Figure(figsize=(4.6 * columns, 3.3 * rows), dpi=130, layout="constrained")
    if not found:
        figure.text(0.5, 0.5, "no events yet", ha="center", va="center", color="0.4")
    for place, (title, unit, scale, lines) in enumerate(found, 1):
        axes = figure.add_subplot(rows, columns, place, title=title, xlabel="step", ylabel=unit)
        _draw_lines(axes, lines, scale)
    _save(figure, path)


def class_chart(iou: np.ndarray, spec: DatasetSpec, path: str | os.PathLike, *, title: str) -> None:
    """Draws intersection over union by class as horizontal bars in the class colours, as a PNG.

    Args:
        iou: float [K] in 0 to 1; nan where a class is absent from truth and prediction.
        spec: names and colours.
        path: of the PNG, written as by `write_file`.
        title: above the chart.
    """
    from matplotlib import figure as mpl_figure

    iou = np.asarray(iou, np.float64)
    if iou.shape != (spec.num_classes,):
        raise ValueError(f"{spec.num_classes} classes need as many IoUs, got {list(iou.shape)}.")
    here = np.isfinite(iou)
    height = 0.27 * spec.num_classes
    figure = mpl_figure.Figure(figsize=(7.0, height + 1.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * np.where(here, iou, 0.0)
    colors = np.array(spec.palette) / 255
    axes.barh(range(spec.num_classes), percent, color=colors, edgecolor="0.3", linewidth=0.6)
    for place, (value, known) in enumerate(zip(percent, here, strict=True)):
        text = f"{value:.1f}" if known else "absent"
        style = {} if known else {"style": "italic", "color": "0.5"}
        axes.text(value + 1, place, text, va="center", fontsize=9, **style)
    if here.any():
        mean = percent[here].mean()
        axes.axvline(mean, color="0.2", linestyle="--", linewidth=1, zorder=0)
        note = f"mIoU {mean:.1f} over {here.sum()} of {here.size} classes"
    else:
        mean, note = 50, "no class present"
    above = axes.get_xaxis_transform()  # x in data, y in heights of the axes
    axes.text(mean, 1.01, note, transform=above, ha="center", va="bottom", fontsize=9)
    axes.set_title(title, fontsize=11, pad=20, parse_math=False)
    axes.set_yticks(range(spec.num_classes), spec.classes, fontsize=9, parse_math=False)
    axes.set_ylim(spec.num_classes - 0.4, -0.6)  # the first class on top
    axes.set_xlim(0, 108)  # room for the number behind a full bar
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("intersection over union (%)")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _rgb(image: np.ndarray, *labels: np.ndarray) -> np.ndarray:
    """Three channels of an image that must match its labels; two channels show the first."""
    for label in labels:
        if image.dtype != np.uint8 or image.shape[:2] != label.shape:
            raise ValueError(
                f"An image uint8 [H, W, C] and labels [H, W] of its size are needed, got "
                f"{image.dtype} {list(image.shape)} and {list(label.shape)}."
            )
    if image.ndim == 3 and image.shape[2] >= 3:
        return np.ascontiguousarray(image[..., :3])
    return np.repeat(image.reshape(*image.shape[:2], -1)[..., :1], 3, axis=2)


def boundary(label: np.ndarray) -> np.ndarray:
    """Pixels at a change of label, thin for the size of the image: int [H, W] -> bool [H, W]."""
    edge = np.zeros(label.shape, np.uint8)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    thickness = 1 + min(label.shape) // 700
    return cv2.dilate(edge, np.ones((thickness, thickness), np.uint8)) > 0


def _errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], [H, W], [H, W] -> uint8 [H, W, 3]: red, or the dimmed image, or hatching."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((60 + 0.45 * gray).astype(np.uint8)[..., None], 3, axis=2)
    picture[truth != prediction] = _WRONG
    void = truth == VOID
    picture[void] = drawing.hatching(*truth.shape)[void]
    return picture


def _cell_height(labels: Sequence[np.ndarray], cell: int) -> int:
    """Height at which the usual picture is as wide as its cell, within reason."""
    heights = [cell * height / width for height, width in (label.shape for label in labels)]
    return int(np.clip(round(np.median(heights or [cell])), min(cell, 48), 3 * cell // 2))


def _entry(index: int, spec: DatasetSpec) -> tuple[str, Color]:
    if index == VOID:
        return "void", spec.void_color
    return spec.classes[index], spec.palette[index]


def _series(history: Sequence[dict], key: str, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps and scaled values of one key, in the order of the steps; None becomes nan."""
    events = sorted((e["step"], i) for i, e in enumerate(history) if key in e)
    values = np.array([history[i][key] for _, i in events], np.float64)
    return np.array([step for step, _ in events], np.int64), factor * values


def _draw_lines(axes, lines: Sequence[tuple], scale: str) -> None:
    """Draws (style, name, colour, steps, values) lines; a long "train" is smoothed over raw."""
    for style, name, color, steps, values in lines:
        if name == "train" and steps.size >= 20:
            axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.35)
            name, values = f"{name}, smoothed", _smooth(values)
        marks = style if steps.size <= 50 else style[1:]
        width = 1.4 if name else 0.9
        axes.plot(steps, values, marks, label=name, color=color, markersize=3.5, linewidth=width)
    values = np.concatenate([line[4] for line in lines])
    values = values[np.isfinite(values)]
    if scale == "zero":
        axes.set_ylim(0, 1.1 * values.max(initial=1e-3))
    elif scale == "log" and values.size and 0 < 100 * values.min() < values.max():
        axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(0, 1.03 * max(1, *(line[3][-1] for line in lines)))
    axes.grid(alpha=0.3)
    if lines[0][1]:
        axes.legend(fontsize=8, framealpha=0.8)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean under a bell a fifteenth of the run wide; centred, so that it does not lag behind."""
    window = np.hanning(2 * max(2, values.size // 30) + 3)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, "same")
    weight = np.convolve(known, window, "same")
    return np.divide(total, weight, out=np.full(values.shape, np.nan), where=weight > 0)


def _save(figure, path: str | os.PathLike) -> None:
    """Renders a matplotlib figure without a window system and writes it."""
    from matplotlib.backends import backend_agg

    surface = backend_agg.FigureCanvasAgg(figure)
    surface.draw()
    write_png(path, np.ascontiguousarray(np.asarray(surface.buffer_rgba())[..., :3]))

"""Curves of a run and charts of its scores, as PNG files.

The functions import matplotlib when called and use its object interface, which needs no window
system and has no global state.
"""

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segjax.data.spec import DatasetSpec
from segjax.pictures import layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def curves(history: Sequence[dict], path: str | os.PathLike) -> None:
    """Draws the events of a run over its steps as a PNG with one small plot per quantity.

    Loss (train raw and smoothed, eval), scores, learning rate, throughput, waiting for data and
    gradient norm are plotted if they have events; `_CURVES` lists the keys. Lines of the averaged
    model, `eval_ema/...`, are dashed. Non-finite values leave a gap. Losses and norms that span
    more than two decades get a logarithmic axis, so that one spike does not flatten the rest.

    Args:
        history: events, as `runs.event_log.read` returns them.
        path: path of the PNG, written by `files.write`.
    """
    from matplotlib import figure as mpl_figure

    plots = []
    for title, (unit, factor, scale, keys) in _CURVES.items():
        lines = [
            (style, f"{name}{note}", color, *_series(history, key.replace("eval/", folder), factor))
            for key, (name, color) in keys.items()
            for folder, note, style in (("eval/", "", "o-"), ("eval_ema/", ", EMA", "s--"))
            if folder == "eval/" or key.startswith("eval/")
        ]
        lines = [line for line in lines if line[3].size]
        if lines:
            plots.append((title, unit, scale, lines))
    columns = min(3, max(1, len(plots)))
    rows = max(1, math.ceil(len(plots) / columns))
    figure = mpl_figure.Figure(figsize=(4.6 * columns, 3.3 * rows), dpi=130, layout="constrained")
    if not plots:
        figure.text(0.5, 0.5, "no events yet", ha="center", va="center", color="0.4")
    for place, (title, unit, scale, lines) in enumerate(plots, 1):
        axes = figure.add_subplot(rows, columns, place, title=title, xlabel="step", ylabel=unit)
        _draw_lines(axes, lines, scale)
    _save(figure, path)


def class_chart(iou: np.ndarray, spec: DatasetSpec, path: str | os.PathLike, *, title: str) -> None:
    """Draws intersection over union by class as a PNG of horizontal bars in the class colours.

    Args:
        iou: float [K], 0 to 1; nan for a class absent from truth and prediction.
        spec: names and colours of the classes.
        path: path of the PNG, written by `files.write`.
        title: title of the chart.

    Raises:
        ValueError: if `iou` has another number of classes than `spec`.
    """
    from matplotlib import figure as mpl_figure

    iou = np.asarray(iou, np.float64)
    if iou.shape != (spec.num_classes,):
        raise ValueError(
            f"iou must have shape [{spec.num_classes}], one per class, got {list(iou.shape)}."
        )
    occurs = np.isfinite(iou)
    height = 0.27 * spec.num_classes
    figure = mpl_figure.Figure(figsize=(7.0, height + 1.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    percent = 100 * np.where(occurs, iou, 0.0)
    colors = np.array(spec.palette) / 255
    axes.barh(range(spec.num_classes), percent, color=colors, edgecolor="0.3", linewidth=0.6)
    for place, (value, known) in enumerate(zip(percent, occurs, strict=True)):
        text = f"{value:.1f}" if known else "absent"
        style: dict[str, Any] = {} if known else {"style": "italic", "color": "0.5"}
        axes.text(value + 1, place, text, va="center", fontsize=9, **style)
    if occurs.any():
        mean = percent[occurs].mean()
        axes.axvline(mean, color="0.2", linestyle="--", linewidth=1, zorder=0)
        note = f"mIoU {mean:.1f} over {occurs.sum()} of {occurs.size} classes"
    else:
        mean, note = 50, "no class present"
    above = axes.get_xaxis_transform()  # x in data coordinates, y in heights of the axes
    axes.text(mean, 1.01, note, transform=above, ha="center", va="bottom", fontsize=9)
    axes.set_title(title, fontsize=11, pad=20, parse_math=False)
    axes.set_yticks(range(spec.num_classes), spec.classes, fontsize=9, parse_math=False)
    axes.set_ylim(spec.num_classes - 0.4, -0.6)  # the first class on top
    axes.set_xlim(0, 108)  # leaves room for the number after a full bar
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("intersection over union (%)")
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _series(history: Sequence[dict], key: str, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps and scaled values of a key, sorted by step; None becomes nan."""
    events = sorted((e["step"], i) for i, e in enumerate(history) if key in e)
    values = np.array([history[i][key] for _, i in events], np.float64)
    return np.array([step for step, _ in events], np.int64), factor * values


def _draw_lines(axes: "Axes", lines: Sequence[tuple], scale: str) -> None:
    """Draws (style, name, colour, steps, values) lines; a long "train" line is also smoothed."""
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
    """Mean under a centred bell, a fifteenth of the run wide; it does not lag and skips gaps."""
    window = np.hanning(2 * max(2, values.size // 30) + 3)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, "same")
    weight = np.convolve(known, window, "same")
    smooth = np.full(values.shape, np.nan)
    np.divide(total, weight, out=smooth, where=weight > 0)
    return smooth


def _save(figure: "Figure", path: str | os.PathLike) -> None:
    """Renders a matplotlib figure without a window system and writes it as a PNG."""
    from matplotlib.backends import backend_agg

    surface = backend_agg.FigureCanvasAgg(figure)
    surface.draw()
    layout.write_png(path, np.ascontiguousarray(np.asarray(surface.buffer_rgba())[..., :3]))

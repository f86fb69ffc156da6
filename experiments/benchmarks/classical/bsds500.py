"""Photographs of BSDS500, and methods compared on them."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.shared import timing
from segjax.data import catalog


@dataclasses.dataclass(frozen=True)
class Example:
    """A photograph: uint8 [H, W, 3], and what people made of it: int32 [H, W] each."""

    name: str
    image: np.ndarray
    humans: list[np.ndarray]


def examples(count: int, split: str = "val") -> list[Example]:
    """Images of BSDS500 (in `$SEGJAX_DATA`), `count` spread over the split; 0 takes all."""
    source = catalog.load_regions("bsds500").splits[split]
    chosen = np.arange(len(source))
    if 0 < count < len(source):
        chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
    found = []
    for index in chosen:
        image, humans = source[int(index)]
        found.append(Example(source.name(int(index)), image, list(humans)))
    return found


def compare(
    examples: Sequence[Example],
    methods: Mapping[str, Callable[[np.ndarray], object]],
    score: Callable[[Example, list[np.ndarray]], list[dict[str, float]]],
    *,
    rounds: int,
) -> list[dict]:
    """A row for each method: the median of its times, the means of its scores.

    Args:
        examples: photographs.
        methods: from an image to labels, numbered in any way.
        score: from an example and all methods' labels, int32 [H, W], to the scores of each.
        rounds: of `timing.median_ms`.
    """
    times, found = [], []
    for example in examples:
        calls = [functools.partial(method, example.image) for method in methods.values()]
        times.append(timing.median_ms(*calls, rounds=rounds))
        shape = example.image.shape[:2]
        labels = [np.unique(np.asarray(call()), return_inverse=True)[1] for call in calls]
        found.append(score(example, [mine.reshape(shape).astype(np.int32) for mine in labels]))
    columns = zip(methods, zip(*times, strict=True), zip(*found, strict=True), strict=True)
    return [
        {
            "method": method,
            "ms": statistics.median(column),
            **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]},
            "images": len(examples),
        }
        for method, column, rows in columns
    ]

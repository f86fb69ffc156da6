"""Reading BSDS500 and timing calls in turn, for the measurements of this folder."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from segjax.data import catalog


@dataclasses.dataclass(frozen=True)
class Example:
    """A photograph: uint8 [H, W, 3], and what people made of it: int32 [H, W] each."""

    name: str
    image: np.ndarray
    humans: list[np.ndarray]


def val_images(count: int, split: str = "val") -> list[Example]:
    """`count` images of BSDS500 (in `$SEGJAX_DATA`), spread over the split; 0 takes all."""
    source = catalog.load_regions("bsds500").splits[split]
    chosen = np.arange(len(source))
    if 0 < count < len(source):
        chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
    examples = []
    for index in chosen:
        image, humans = source[int(index)]
        examples.append(Example(source.name(int(index)), image, list(humans)))
    return examples


def median_ms(*calls: Callable[[], object], rounds: int) -> list[float]:
    """Median milliseconds of each call, the calls taken in turn in every round.

    A call has to wait for its own result. In its turn each is made three times and the first is
    not counted: it may compile, and threads of the library before (OpenMP, OpenBLAS) spin for a
    while after their work, on the cores that it needs.
    """
    times = [[] for _ in calls]
    for _ in range(rounds):
        for call, mine in zip(calls, times, strict=True):
            call()
            for _ in range(2):
                start = time.perf_counter()
                call()
                mine.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(mine) for mine in times]


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
        rounds: of `median_ms`.
    """
    times, found = [], []
    for example in examples:
        calls = [functools.partial(method, example.image) for method in methods.values()]
        times.append(median_ms(*calls, rounds=rounds))
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

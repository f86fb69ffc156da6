"""The data path on the host: order, sharding by process, decoding, placing and batching.

Pixels are changed only on the device (`training/augment.py`). A batch is a dict of numpy arrays:
    image: uint8 [B, H, W, 3], RGB in the top left of a canvas filled with the mean colour.
    label: uint8 [B, H, W], classes; VOID outside the image.
    size: int32 [B, 2], the image's height and width on the canvas.
    position: uint32 [B], position in the endless stream, the key of the augmentation: its low part.
    position_high: uint32 [B], the position's multiple of 2^32, 0 in most runs.
    index: uint32 [B], item of the data set.
    weight: float32 [B], 0 for rows that fill up the last evaluation batch.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from segjax import arrays
from segjax.data.sources import Source
from segjax.data.spec import VOID
from segjax.errors import InputError

BUCKET = 64
"""Multiple to which evaluation fills up the sides of images in a set with many sizes."""

EXACT_SIZES = 8
"""Largest number of sizes for which each size gets a compiled program and no bucket is used."""

Batch = dict[str, np.ndarray]


class Stream(Iterator[Batch]):
    """An iterator over batches that are read ahead; `close` ends its threads and workers."""

    def __init__(self, batches: grain.DatasetIterator):
        self._batches = batches

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            InputError: naming a file that cannot be read, or if a worker has died.
        """
        try:
            batch: Batch = next(self._batches)
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise InputError(
                "A worker process (config.loader.workers) was ended from outside, perhaps for want "
                "of memory: start again, or with fewer workers."
            ) from error
        return batch

    def close(self) -> None:
        """Ends reading; there are no batches after it."""
        self._batches.close()


def train_batches(
    source: Source,
    *,
    canvas: tuple[int, int],
    fill: Sequence[float],
    batch_size: int,
    seed: int,
    first_step: int,
    process: int,
    processes: int,
    threads: int,
    workers: int,
    prefetch: int,
) -> Stream:
    """One process's rows of the endless stream of global batches, from `first_step` on.

    Every epoch has another order, a function of the seed alone. The position in the stream is one
    integer, `first_step`, which does not depend on the number of processes, threads and workers.
    Close the stream after use: workers run until then.

    Args:
        source: random access to (image, label).
        canvas: (H, W) of the canvas; every example is placed in its top left.
        fill: RGB colour of the rest of the canvas.
        batch_size: global.
        seed: seed of the order.
        first_step: number of batches already used.
        process, processes: index of this process, and the number of processes.
        threads, workers, prefetch: see `config.loader`.

    Raises:
        InputError: if the processes do not divide the batch.
    """
    if batch_size % processes:
        raise InputError(
            f"config.batch_size {batch_size} does not divide over {processes} processes."
        )

    def load(position: int, index: int) -> dict[str, np.ndarray | np.generic]:
        return _example(source, int(index), canvas, fill, position=position)

    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    examples = order.map_with_index(load)
    batches = examples.batch(batch_size // processes, drop_remainder=True)
    local = batches[process::processes][first_step:]
    return _iterate(local, threads=threads, workers=workers, prefetch=prefetch)


def eval_plan(
    sizes: np.ndarray, *, batch_size: int, bucket: int, limit: int
) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Batches of an evaluation: examples with the same canvas, every example exactly once.

    Args:
        sizes: int32 [N, 2], sizes of the split's images.
        batch_size: global.
        bucket: multiple to which a canvas's sides are filled up; 1 keeps the exact size.
        limit: number of examples, spread evenly over the split; 0 takes all.

    Returns:
        (canvas, int64 [batch_size] of indices, -1 for rows without example) for each batch.
    """
    chosen = np.arange(len(sizes))
    if limit and limit < len(sizes):
        chosen = np.linspace(0, len(sizes) - 1, limit).round().astype(np.int64)
    by_canvas: dict[tuple[int, int], list[int]] = {}
    for index in chosen:
        by_canvas.setdefault(canvas_of(sizes[index], bucket), []).append(int(index))
    plan = []
    for canvas in sorted(by_canvas):
        indices = by_canvas[canvas]
        for start in range(0, len(indices), batch_size):
            rows = np.full(batch_size, -1, np.int64)
            part = indices[start : start + batch_size]
            rows[: len(part)] = part
            plan.append((canvas, rows))
    return plan


def canvas_of(size: Sequence[int], bucket: int) -> tuple[int, int]:
    """The canvas of an image, from its size alone: sides rounded up to multiples of `bucket`."""
    height, width = (arrays.round_up(int(side), bucket) for side in size)
    return height, width


def resolve_bucket(bucket: int, sizes: np.ndarray) -> int:
    """The bucket of an evaluation: `bucket`, or if it is 0, 1 for few sizes and BUCKET for many."""
    if bucket:
        return bucket
    return 1 if len(np.unique(sizes, axis=0)) <= EXACT_SIZES else BUCKET


def eval_batches(
    source: Source,
    plan: Sequence[tuple[tuple[int, int], np.ndarray]],
    *,
    fill: Sequence[float],
    process: int,
    processes: int,
    threads: int,
    prefetch: int,
) -> Stream:
    """One process's rows of the planned batches, in order.

    Raises:
        InputError: if the processes do not divide the batch.
    """
    if plan and len(plan[0][1]) % processes:
        raise InputError(
            f"config.eval.batch_size {len(plan[0][1])} does not divide over {processes} processes."
        )

    def load(position: int) -> Batch:
        canvas, rows = plan[position]
        local = np.split(rows, processes)[process]
        batch = empty_batch(canvas, fill, len(local))
        for row in np.flatnonzero(local >= 0):
            for key, value in _example(source, int(local[row]), canvas, fill, position=0).items():
                batch[key][row] = value
        return batch

    return _iterate(
        grain.MapDataset.range(len(plan)).map(load), threads=threads, workers=0, prefetch=prefetch
    )


def place(
    image: np.ndarray, label: np.ndarray, canvas: tuple[int, int], fill: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The example in the top left of a canvas: uint8 [H, W, 3] and uint8 [H, W].

    Raises:
        InputError: if the image is larger than the canvas.
    """
    if label.shape == canvas:
        return image, label
    height, width = label.shape
    if height > canvas[0] or width > canvas[1]:
        raise InputError(
            f"An image of {height} x {width} does not fit the canvas {canvas[0]} x {canvas[1]}."
        )
    placed = np.empty((*canvas, 3), np.uint8)
    placed[:] = np.round(fill).astype(np.uint8)
    placed[:height, :width] = image
    placed_label = np.full(canvas, VOID, np.uint8)
    placed_label[:height, :width] = label
    return placed, placed_label


def _example(
    source: Source, index: int, canvas: tuple[int, int], fill: Sequence[float], *, position: int
) -> dict[str, np.ndarray | np.generic]:
    image, label = source[index]
    size = np.array(label.shape, np.int32)
    image, label = place(image, label, canvas, fill)
    return {
        "image": image,
        "label": label,
        "size": size,
        "position": np.uint32(position % 2**32),
        "position_high": np.uint32(position // 2**32),
        "index": np.uint32(index),
        "weight": np.float32(1),
    }


def empty_batch(canvas: tuple[int, int], fill: Sequence[float], rows: int) -> Batch:
    """A batch without examples: all VOID, weight 0. It fills up batches and compiles programs."""
    empty = np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8)
    image, label = place(*empty, canvas, fill)
    return {
        "image": np.repeat(image[None], rows, 0),
        "label": np.repeat(label[None], rows, 0),
        "size": np.full((rows, 2), canvas, np.int32),
        "position": np.zeros(rows, np.uint32),
        "position_high": np.zeros(rows, np.uint32),
        "index": np.zeros(rows, np.uint32),
        "weight": np.zeros(rows, np.float32),
    }


def _iterate(dataset: grain.MapDataset, *, threads: int, workers: int, prefetch: int) -> Stream:
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    if not workers:
        return Stream(iter(dataset.to_iter_dataset(options)))
    # Each worker process reads with this many threads and prefetches this many batches.
    per_worker = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=prefetch)
    return Stream(iter(dataset.to_iter_dataset(options).mp_prefetch(per_worker, _init_worker)))


def _init_worker(_index: int, _count: int) -> None:
    """Ties a worker's life to that of the process that started it.

    A worker that waits for room in its queue would outlive a parent that was killed. Linux could
    end it with the parent (PR_SET_PDEATHSIG), but counts the thread that started it as its parent,
    and grain starts workers from threads that end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def follow(sentinel: int) -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()
    # A terminal sends these to workers too; the process that started them saves and closes them.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

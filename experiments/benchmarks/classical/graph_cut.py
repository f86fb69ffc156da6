"""Minimum cuts beside PyMaxflow, GrabCut beside OpenCV's, on BSDS500."""

import functools
import itertools
import statistics
from collections.abc import Iterator

import cv2
import jax
import jax.numpy as jnp
import maxflow
import numpy as np

from experiments.benchmarks.classical import bsds500
from experiments.shared import timing
from segjax import study
from segjax.classical import graph_cut
from segjax.classical.grabcut import grabcut

_EDGES = {
    4: (((0, 0, 0), (0, 0, 1), (0, 0, 0)), ((0, 0, 0), (0, 0, 0), (0, 1, 0))),
    8: (
        ((0, 0, 0), (0, 0, 1), (0, 0, 0)),
        ((0, 0, 0), (0, 0, 0), (0, 1, 0)),
        ((0, 0, 0), (0, 0, 0), (0, 0, 1)),
        ((0, 0, 0), (0, 0, 0), (1, 0, 0)),
    ),
}
"""PyMaxflow's structures of the edges right, down, down and right, down and left."""


def measure(images: int, rounds: int) -> list[dict]:
    """Both on `images` of val: medians of times, relative energies, mean IoU over targets."""
    examples = bsds500.examples(images)
    cuts = [row for connectivity in (4, 8) for row in _cuts(examples, connectivity, rounds)]
    return [*cuts, *_boxes(examples, rounds)]


def problem(example: bsds500.Example, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """Integer unaries [H, W, 2] and edges of one human segment's colours against the rest's.

    The costs come from histograms of 8^3 colours inside and outside of the first human's largest
    segment, as if a person had marked it.
    """
    human = example.humans[0]
    mask = human == np.argmax(np.bincount(human[human >= 0]))
    code = (example.image >> 5).astype(int) @ np.array([64, 8, 1])
    costs = []
    for part in (~mask, mask):
        count = np.bincount(code[part], minlength=512) + 1.0
        costs.append(-np.log(count / count.sum())[code])
    edges = np.asarray(
        graph_cut.contrast(example.image, smoothness=10.0, sigma=None, connectivity=connectivity)
    )
    scale = 1000
    return np.round(scale * np.stack(costs, -1)).astype(np.int32), np.round(scale * edges).astype(
        np.int32
    )


def _library(unary: np.ndarray, edges: np.ndarray, connectivity: int) -> np.ndarray:
    graph = maxflow.Graph[int](unary[..., 0].size, unary[..., 0].size * connectivity)
    nodes = graph.add_grid_nodes(unary.shape[:2])
    for structure, capacity in zip(_EDGES[connectivity], edges, strict=True):
        graph.add_grid_edges(nodes, capacity, np.array(structure), symmetric=True)
    graph.add_grid_tedges(nodes, unary[..., 1], unary[..., 0])
    graph.maxflow()
    return graph.get_grid_segments(nodes).astype(np.int32) ^ 1


def _energy(labels: np.ndarray, unary: np.ndarray, edges: np.ndarray) -> int:
    total = int(np.take_along_axis(unary, labels[..., None], -1).sum(dtype=np.int64))
    for (down, right), capacity in zip(((0, 1), (1, 0), (1, 1), (1, -1)), edges, strict=False):
        height, width = labels.shape
        near = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        far = np.s_[down:, max(0, right) : width + min(0, right)]
        total += int(capacity[near][labels[near] != labels[far]].sum(dtype=np.int64))
    return total


def _cuts(examples, connectivity: int, rounds: int) -> list[dict]:
    times, gaps, proved = [], [], []
    solve = jax.jit(graph_cut.min_cut)
    for example in examples:
        unary, edges = problem(example, connectivity)
        arrays = jnp.asarray(unary), jnp.asarray(edges)
        ours = functools.partial(lambda a, b: jax.block_until_ready(solve(a, b)), *arrays)
        theirs = functools.partial(_library, unary, edges, connectivity)
        times.append(timing.median_ms(ours, theirs, rounds=rounds))
        cut = ours()
        energies = [_energy(np.asarray(v), unary, edges) for v in (cut.labels, theirs())]
        if min(energies) != energies[1]:  # the other orientation of PyMaxflow's segments
            energies[1] = min(energies[1], _energy(theirs() ^ 1, unary, edges))
        gaps.append((energies[0] - energies[1]) / energies[1])
        proved.append(bool(cut.optimal))
    names = ("min_cut", "PyMaxflow, its graph included")
    return [
        {
            "method": name,
            "neighbours": connectivity,
            "ms": statistics.median(column),
            "largest_energy_gap": max(gaps, key=abs) if name == "min_cut" else 0.0,
            "proved_optimal": f"{sum(proved)} of {len(proved)}" if name == "min_cut" else "",
            "images": len(examples),
        }
        for name, column in zip(names, zip(*times, strict=True), strict=True)
    ]


def _boxes(examples, rounds: int) -> list[dict]:
    """Each segment of 5 to 40 % that the first human drew is a target.

    Segments whose box is the whole image are left out: OpenCV raises an error there.
    """
    methods = {
        "grabcut, gamma 25 (chosen on train)": _ours(gamma=25.0),
        "grabcut, gamma 50 (the paper's, and OpenCV's)": _ours(gamma=50.0),
        "cv2.grabCut": _opencv,
    }
    times, found = [], {name: [] for name in methods}
    for task in _targets(examples):
        calls = [functools.partial(m, task.image, task.box) for m in methods.values()]
        times.append(timing.median_ms(*calls, rounds=rounds))
        for name, call in zip(methods, calls, strict=True):
            found[name].append(_iou(np.asarray(call()), task))
    return [
        {
            "method": name,
            "ms": statistics.median(column),
            "iou": float(np.mean(found[name])),
            "targets": len(found[name]),
            "images": len(examples),
        }
        for name, column in zip(methods, zip(*times, strict=True), strict=True)
    ]


def tune(images: int) -> None:
    """Prints the mean IoU of settings on `images` of train."""
    examples = bsds500.examples(images, split="train")
    tasks = list(_targets(examples))
    for components, gamma in itertools.product((5, 8), (5.0, 10.0, 15.0, 25.0, 50.0)):
        method = _ours(components=components, gamma=gamma)
        scores = [_iou(np.asarray(method(task.image, task.box)), task) for task in tasks]
        print(components, gamma, f"{np.mean(scores):.4f}", len(tasks), flush=True)


def _targets(examples) -> Iterator[study.Task]:
    for example in examples:
        for task in study.targets(0, example.image, np.stack(example.humans[:1])):
            if tuple(task.box) != (0, 0, *example.image.shape[:2]):
                yield task


def _iou(labels: np.ndarray, task: study.Task) -> float:
    mask, target = labels > 0, task.humans[0] == 1
    return float((mask & target).sum() / (mask | target).sum())


def _ours(**options):
    method = jax.jit(functools.partial(grabcut, **options))
    return lambda image, box: method(image, jnp.asarray(box)).block_until_ready()


def _opencv(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    top, left, bottom, right = (int(side) for side in box)
    mask = np.zeros(image.shape[:2], np.uint8)
    state = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (left, top, right - left, bottom - top)
    cv2.grabCut(image, mask, rectangle, *state, 5, cv2.GC_INIT_WITH_RECT)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)

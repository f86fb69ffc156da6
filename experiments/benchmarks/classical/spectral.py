"""Spectral clustering and normalised cuts beside scipy, scikit-learn and scikit-image."""

import functools
import itertools
import statistics
from collections.abc import Callable

import jax
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from skimage import graph, segmentation
from sklearn import cluster

from experiments.benchmarks.classical import bsds500
from experiments.shared import timing
from segjax.classical import color, ncut, spectral
from segjax.metrics import partitions

SEGMENTS = 8
SOLVED = ((96, 2.0), (240, 5.0))  # longest side and radius of the eigensolver's rows
SIGMAS = (10.0, 30.0)  # of colour there: values crowd at zero where it is small
# What `tune` chose on train.
PIXELS = {"radius": 3.0, "sigma_color": 2.0, "sigma_position": 3.0, "side": 96}
CUTS = {
    "sigma_color": 9.0, "sigma_boundary": 7.0, "histogram": 4.0, "second": 0.3, "threshold": 0.01,
}  # fmt: skip
_PIXEL_GRID = {"radius": (2.0, 3.0, 5.0), "sigma_color": (1.5, 2.0, 3.0, 4.0, 10.0)}
_CUT_GRID = {
    "sigma_color": (7.0, 9.0, 12.0), "sigma_boundary": (5.0, 7.0, 9.0), "histogram": (3.0, 4.0),
    "second": (0.2, 0.3, 0.4), "threshold": (0.008, 0.01, 0.012),
}  # fmt: skip


def measure(images: int, rounds: int) -> list[dict]:
    """Eigenvalues, clustering of pixels, cuts of region graphs, on `images` of val.

    In the rows of eigenvalues our time includes making the graph, scipy's does not. In those of
    segmentations everything from the image on is timed, except making scikit-learn's matrix.
    """
    examples = bsds500.examples(images)
    solved = [
        row
        for (side, radius), sigma in itertools.product(SOLVED, SIGMAS)
        for row in _solvers(examples, side, radius, sigma, rounds)
    ]
    return solved + _pixels(examples, rounds) + _regions(examples, rounds)


def tune(images: int) -> None:
    """Prints scores on train, one parameter of the method varied at a time."""
    examples = bsds500.examples(images, "train")
    pixels = functools.partial(spectral.spectral, segments=SEGMENTS)
    for method, chosen, grid in (
        (pixels, PIXELS, _PIXEL_GRID),
        (ncut.ncut_regions, CUTS, _CUT_GRID),
    ):
        for key, values in grid.items():
            for value in values:
                call = functools.partial(method, **{**chosen, key: value})
                found = [
                    partitions.partition_scores(np.asarray(call(example.image)), example.humans)
                    for example in examples
                ]
                print(key, value, {name: round(mean, 4) for name, mean in _means(found).items()})


def affinity(
    image: np.ndarray, *, side: int, radius: float, sigma_color: float, sigma_position: float
) -> tuple[scipy.sparse.csr_matrix, tuple[int, int]]:
    """W of the pixel grid as a sparse float64 matrix, its diagonal 1, and the grid's shape."""
    shape = spectral.graph_shape(image.shape[:2], side)
    planes = np.asarray(color.lab_planes(spectral.shrink(image, shape)), np.float64)
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    rows, columns, values = [index.ravel()], [index.ravel()], [np.ones(index.size)]
    reach = range(-int(radius), int(radius) + 1)
    for down, right in itertools.product(reach, reach):
        square = down * down + right * right
        if 0 < square <= radius * radius:
            here = np.s_[max(0, -down) : shape[0] - max(0, down),
                         max(0, -right) : shape[1] - max(0, right)]  # fmt: skip
            there = np.s_[max(0, down) : shape[0] + min(0, down),
                          max(0, right) : shape[1] + min(0, right)]  # fmt: skip
            gap = sum((plane[here] - plane[there]) ** 2 for plane in planes)
            rows.append(index[here].ravel())
            columns.append(index[there].ravel())
            values.append(np.exp(-gap / sigma_color**2 - square / sigma_position**2).ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return scipy.sparse.csr_matrix(entries), shape


def _solvers(examples, side: int, radius: float, sigma_color: float, rounds: int) -> list[dict]:
    settings = {"radius": radius, "sigma_color": sigma_color, "sigma_position": radius}
    times, errors = [], []
    for example in examples:
        matrix, shape = affinity(example.image, side=side, **settings)
        root = np.sqrt(np.asarray(matrix.sum(axis=1)).ravel())
        scaled = scipy.sparse.diags(1 / root) @ matrix @ scipy.sparse.diags(1 / root)
        single, start = scaled.tocsr().astype(np.float32), root.astype(np.float32)
        planes = color.lab_planes(spectral.shrink(example.image, shape))
        calls = [
            functools.partial(_ours, planes, shape, *settings.values()),
            # The fastest of the tolerances, precisions and sizes of subspace that were tried.
            lambda single=single, start=start: (
                1
                - scipy.sparse.linalg.eigsh(
                    single,
                    SEGMENTS,
                    which="LA",
                    tol=1e-3,
                    ncv=30,
                    v0=start,
                    return_eigenvectors=True,
                )[0][::-1]
            ),
        ]
        times.append(timing.median_ms(*calls, rounds=rounds))
        exact = 1 - scipy.sparse.linalg.eigsh(
            scaled.tocsr(), SEGMENTS, which="LA", tol=1e-6, ncv=60, v0=root
        )[0][::-1]  # fmt: skip
        errors.append([float(np.abs(np.asarray(call()) - exact).max()) for call in calls])
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    names = "multigrid Chebyshev", "scipy eigsh, float32, tol 1e-3, ncv 30"
    return [
        {
            "method": name,
            "settings": {"side": side, **settings, "vectors": SEGMENTS},
            "ms": statistics.median(column),
            "times_faster": ratio if name == names[0] else 1.0,
            "median_error": statistics.median(error),
            "largest_error": max(error),
            "images": len(examples),
        }
        for name, column, error in zip(names, zip(*times, strict=True),
                                       zip(*errors, strict=True), strict=True)
    ]  # fmt: skip


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _eigenvalues(planes, shape, radius, sigma_color, sigma_position) -> jax.Array:
    links = spectral.grid_links(planes, radius, sigma_color, sigma_position)
    values, vectors = spectral.grid_vectors(
        links, shape, wanted=SEGMENTS, normalised=True, key=jax.random.key(0)
    )
    return values[:SEGMENTS], vectors


def _ours(*arguments) -> np.ndarray:
    return np.asarray(jax.block_until_ready(_eigenvalues(*arguments))[0])


def _pixels(examples, rounds: int) -> list[dict]:
    def library(image: np.ndarray) -> np.ndarray:
        matrix, shape = matrices[image.tobytes()]
        method = cluster.SpectralClustering(
            SEGMENTS, affinity="precomputed", eigen_solver="amg", random_state=0
        )
        labels = method.fit_predict(matrix).astype(np.int32).reshape(shape)
        return np.asarray(spectral.enlarge(labels, image.shape[:2]))

    matrices = {example.image.tobytes(): affinity(example.image, **PIXELS) for example in examples}
    methods: dict[str, Callable] = {
        f"spectral {laplacian}, {assign}": _method(
            spectral.spectral, segments=SEGMENTS, laplacian=laplacian, assign=assign, **PIXELS
        )
        for laplacian, assign in itertools.product(spectral.LAPLACIANS, spectral.ASSIGNMENTS)
    }
    methods["scikit-learn SpectralClustering, amg"] = library
    return _segmentations(methods, {"segments": SEGMENTS, **PIXELS}, examples, rounds)


def _regions(examples, rounds: int) -> list[dict]:
    def library(image: np.ndarray) -> np.ndarray:
        regions = segmentation.slic(image, n_segments=400, compactness=20, start_label=0)
        weights = graph.rag_mean_color(image, regions, mode="similarity")
        for seed in range(5):  # ARPACK gives up on some starting vectors
            try:
                return np.asarray(graph.cut_normalized(regions, weights, rng=seed), np.int32)
            except scipy.sparse.linalg.ArpackError:
                continue
        raise ValueError("scikit-image's cut_normalized fails from five starts.")

    likeness = {key: value for key, value in CUTS.items() if key != "threshold"}
    ours = {
        "ncut_regions recursive": _method(ncut.ncut_regions, **CUTS),
        "ncut_regions kway, discretize": _method(ncut.ncut_regions, form="kway", **likeness),
        "ncut_regions kway, kmeans": _method(
            ncut.ncut_regions, form="kway", assign="kmeans", **likeness
        ),
    }
    rows = _segmentations(
        {**ours, "scikit-image SLIC, cut_normalized": library}, CUTS, examples, rounds
    )
    rows[-1]["settings"] = {"n_segments": 400, "compactness": 20}
    return rows


def _method(method: Callable, **options) -> Callable:
    call = jax.jit(functools.partial(method, **options))
    return lambda image: np.asarray(call(image))


def _segmentations(methods: dict, settings: dict, examples, rounds: int) -> list[dict]:
    rows = bsds500.compare(
        examples,
        methods,
        lambda example, labels: [
            partitions.partition_scores(mine, example.humans) for mine in labels
        ],
        rounds=rounds,
    )
    return [{"method": row.pop("method"), "settings": settings, **row} for row in rows]


def _means(found) -> dict[str, float]:
    return {key: float(np.mean([each[key] for each in found])) for key in found[0]}

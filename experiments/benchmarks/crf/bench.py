"""Time and agreement of the CRF beside pydensecrf2, lattices included.

    python -m experiments.benchmarks.crf.bench --hardware="2 CPU cores"

Photographs of scikit-image at two sizes, 21 labels, 10 iterations; logits are random regions with
noise. Both sides start from the image and the logits, and end with marginals. Calls are taken in
turn in one process, and compared image by image. On an accelerator there is no pydensecrf2 to
compare with; single images and a batch are timed. Writes bench-<platform>.json beside this file, or
into `--output`, and README.md from all of them.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
from collections.abc import Callable

import cv2
import jax
import numpy as np

from experiments.shared import pages, photographs, timing
from segjax import crf, files
from segjax.crf import kernels
from segjax.data import sources

COMMAND = 'python -m experiments.benchmarks.crf.bench --hardware="2 CPU cores"'
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
SIZES = ((240, 320), (375, 500))
PRESETS = ("deeplab_v1", "deeplab_v2_resnet101", "pydensecrf_example")
LABELS = 21
ITERATIONS = 10
BATCH = 8


def main() -> None:
    """Measures on the platform that JAX finds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--photos", type=pathlib.Path, help="a folder; scikit-image's by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    folder = given.photos or photographs.folder()
    platform = jax.default_backend()
    rows = []
    for size in SIZES:
        cases = [case(folder / name, size) for name in PHOTOS]
        for preset in PRESETS:
            dense = crf.build(preset, iterations=ITERATIONS)
            rows.append(
                {"preset": preset, "size": size} | measure(cases, dense, given.rounds, platform)
            )
            print(json.dumps(rows[-1]), flush=True)
    record = pages.circumstances(COMMAND, given.hardware) | {"platform": platform, "rows": rows}
    files.write_json(given.output / f"bench-{platform}.json", record)
    pages.write(given.output / "README.md", page(given.output))


def case(path: pathlib.Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A photograph and drawn logits: uint8 [H, W, 3], float32 [H, W, K]."""
    image = sources.read_image(path)
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(len(path.name))
    coarse = rng.normal(scale=3, size=(8, 8, LABELS)).astype(np.float32)
    smooth = [cv2.resize(coarse[..., k], size[::-1]) for k in range(LABELS)]
    noise = rng.normal(scale=0.5, size=(*size, LABELS)).astype(np.float32)
    return image, np.stack(smooth, axis=-1) + noise


def measure(cases: list, dense: crf.DenseCrf, rounds: int, platform: str) -> dict:
    """Medians over the photographs, and the differences of the marginals."""
    capacity = max(_needed(image, dense) for image, _ in cases)
    capacity = math.ceil(1.05 * capacity)
    one = jax.jit(lambda image, logits: jax.nn.softmax(dense(image, logits, capacity=capacity)[0]))
    found = {"vertices": capacity}
    if platform != "cpu":
        return found | _alone(cases, dense, one, rounds, capacity)
    times, differences, same = [], [], []
    for image, logits in cases:
        both = (
            functools.partial(_ready, one, image, logits),
            functools.partial(theirs, image, logits, dense),
        )
        times.append(timing.median_ms(*both, rounds=rounds))
        ours, other = np.asarray(both[0]()), both[1]()
        differences.append(np.abs(ours - other).mean())
        same.append((ours.argmax(-1) == other.argmax(-1)).mean())
    return found | {
        "ms": statistics.median(mine for mine, _ in times),
        "ms_pydensecrf2": statistics.median(other for _, other in times),
        "ratio": statistics.median(mine / other for mine, other in times),
        "ratios": [mine / other for mine, other in times],
        "mean_difference": float(max(differences)),
        "same_labels": float(min(same)),
    }


def _needed(image: np.ndarray, dense: crf.DenseCrf) -> int:
    def needed(image):
        built = kernels.bilateral(
            image, dense.theta_alpha, dense.theta_beta, capacity=1, normalization="none"
        )
        return built.operator.needed

    return int(jax.jit(needed)(image))


def _ready(run: Callable, *arrays) -> jax.Array:
    return jax.block_until_ready(run(*arrays))


def _alone(cases: list, dense: crf.DenseCrf, one: Callable, rounds: int, capacity: int) -> dict:
    """Milliseconds an image, one at a time and of a batch, arrays on the device."""
    batch = jax.jit(functools.partial(dense.batch, capacity=capacity))
    rows = [cases[i % len(cases)] for i in range(BATCH)]
    images, logits = (jax.device_put(np.stack(part)) for part in zip(*rows, strict=True))
    single = [jax.device_put(part) for part in cases[0]]
    calls = (
        functools.partial(_ready, one, *single),
        functools.partial(_ready, batch, images, logits),
    )
    alone, together = timing.median_ms(*calls, rounds=max(rounds, 10))
    return {"ms": alone, "ms_of_batch": together / BATCH, "batch": BATCH}


def theirs(image: np.ndarray, logits: np.ndarray, dense: crf.DenseCrf) -> np.ndarray:
    """Marginals by pydensecrf2: float32 [H, W, K]."""
    import pydensecrf.densecrf as dcrf

    kind = {
        "after": dcrf.NORMALIZE_AFTER,
        "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    }[dense.normalization]
    height, width, labels = logits.shape
    scene = dcrf.DenseCRF2D(width, height, labels)
    if dense.unary == "probabilities":
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        logits = np.log(np.clip(shifted / shifted.sum(-1, keepdims=True), 1e-5, 1))
    unary = -logits.reshape(-1, labels).T
    scene.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    scene.addPairwiseGaussian(sxy=dense.theta_gamma, compat=dense.w2, normalization=kind)
    scene.addPairwiseBilateral(
        sxy=dense.theta_alpha,
        srgb=dense.theta_beta,
        rgbim=image,
        compat=dense.w1,
        normalization=kind,
    )
    return np.array(scene.inference(dense.iterations)).T.reshape(height, width, labels)


def page(folder: pathlib.Path) -> list[str]:
    """The paragraphs of the page, from the measurements of every platform in the folder."""
    parts = ["# The fully connected CRF: time", pages.block(COMMAND)]
    for path in sorted(folder.glob("bench-*.json")):
        record = json.loads(path.read_text())
        parts += [
            f"## {record['hardware']}",
            f"{record['date']}; {pages.software(record['versions'])}. "
            f"{pages.made(record, COMMAND)}",
        ]
        table = _beside if record["platform"] == "cpu" else _on_device
        parts.append(table(record["rows"]))
    parts.append(
        f"{LABELS} labels, {ITERATIONS} iterations, building the lattices included; medians over "
        f"four photographs. Vertices: of the bilateral lattice, the most of the four."
    )
    return parts


def _beside(rows: list[dict]) -> str:
    head = (
        "preset",
        "size",
        "vertices",
        "ms",
        "pydensecrf2 1.1, ms",
        "ratio, its range",
        "mean difference of marginals",
        "same labels",
    )
    cells = [
        [
            *_case_cells(row),
            f"{row['ms']:.0f}",
            f"{row['ms_pydensecrf2']:.0f}",
            f"**{row['ratio']:.2f}** ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})",
            f"{row['mean_difference']:.1e}",
            f"{100 * row['same_labels']:.3f} %",
        ]
        for row in rows
    ]
    return pages.table(head, cells)


def _on_device(rows: list[dict]) -> str:
    head = ("preset", "size", "vertices", "ms", "ms an image of 8")
    cells = [[*_case_cells(row), f"{row['ms']:.2f}", f"{row['ms_of_batch']:.2f}"] for row in rows]
    return pages.table(head, cells)


def _case_cells(row: dict) -> list[str]:
    return [row["preset"], f"{row['size'][1]} x {row['size'][0]}", str(row["vertices"])]


if __name__ == "__main__":
    main()

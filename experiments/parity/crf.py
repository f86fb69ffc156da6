"""The fully connected CRF against pydensecrf: fixtures of tests and the page.

    python -m experiments.parity.crf --hardware="2 CPU cores"

pydensecrf2 wraps the code of the ICML 2013 paper; it has to be installed. The cases are
in `crf_cases.py`. Writes experiments/parity/crf.{json,md}, and to tests/fixtures/crf/*.npz the
label of every pixel and the marginals of some.
"""

import argparse
import importlib.metadata
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pydensecrf.densecrf
import pydensecrf.utils

from experiments.parity import crf_cases, report
from experiments.parity.crf_cases import CASES, Case
from experiments.shared import pages

NORMALIZATIONS = {
    "after": pydensecrf.densecrf.NORMALIZE_AFTER,
    "before": pydensecrf.densecrf.NORMALIZE_BEFORE,
    "symmetric": pydensecrf.densecrf.NORMALIZE_SYMMETRIC,
    "none": pydensecrf.densecrf.NO_NORMALIZATION,
}


def main() -> None:
    """Measures every case, then writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()
    crf_cases.FIXTURES.mkdir(parents=True, exist_ok=True)
    measured = {}
    for name, case in CASES.items():
        marginals = theirs(case)
        np.savez_compressed(
            crf_cases.FIXTURES / f"{name}.npz",
            labels=crf_cases.labels(marginals),
            marginals=crf_cases.kept(case, marginals),
        )
        measured[name] = compare(case, marginals)
        print(name, measured[name], flush=True)
    version = importlib.metadata.version("pydensecrf2")
    command = "python -m experiments.parity.crf --hardware=TEXT"
    about = {"oracle": f"pydensecrf2 {version}"} | pages.circumstances(command, given.hardware)
    report.write("crf", about, {"cases": measured}, page(measured))


def theirs(case: Case) -> np.ndarray:
    """Marginals, float32 [H, W, K]."""
    image, logits = crf_cases.draw(case)
    one, (height, width) = case.crf, case.size
    unary = -logits.reshape(-1, case.classes).T
    if one.unary == "probabilities":
        unary = pydensecrf.utils.unary_from_softmax(np.moveaxis(softmax(logits), -1, 0))
    net = pydensecrf.densecrf.DenseCRF2D(width, height, case.classes)
    net.setUnaryEnergy(np.ascontiguousarray(unary))
    how = NORMALIZATIONS[one.normalization]
    first, second = one.w1, one.w2
    if case.compatibility != "potts":
        first, second = crf_cases.energies(case)
    net.addPairwiseGaussian(sxy=one.theta_gamma, compat=second, normalization=how)
    net.addPairwiseBilateral(
        sxy=one.theta_alpha, srgb=one.theta_beta, rgbim=image, compat=first, normalization=how
    )
    found = np.array(net.inference(one.iterations))
    return np.moveaxis(found.reshape(case.classes, height, width), 0, -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [..., K]."""
    return np.asarray(jax.nn.softmax(logits))


def compare(case: Case, expected: np.ndarray) -> dict[str, Any]:
    """Their result and our difference from it, over all pixels."""
    before = crf_cases.draw(case)[1]
    found, labels = crf_cases.ours(case), crf_cases.labels(expected)
    apart = np.abs(found.astype(np.float64) - expected)
    with jax.enable_x64(True):
        exact = crf_cases.ours(case, "float64")
    row = {
        "changed": float(np.mean(labels != before.argmax(-1))),
        "certainty": [float(x.max(-1).mean()) for x in (softmax(before), expected)],
        "mean": float(apart.mean()),
        "max": float(apart.max()),
        "above 1e-4": int(np.sum(apart.max(-1) > 1e-4)),
        "float64 max": {
            "ours": float(np.abs(found - exact).max()),
            "theirs": float(np.abs(expected - exact).max()),
        },
        "agreement": float(np.mean(crf_cases.labels(found) == labels)),
    }
    assert row["mean"] <= crf_cases.TOLERANCE, row
    assert row["agreement"] >= crf_cases.AGREEMENT, row
    return row


def page(measured: Mapping[str, Mapping]) -> list[str]:
    """The page's title and paragraphs."""
    rows = [
        [
            name,
            "{} x {}".format(*CASES[name].size),
            str(CASES[name].classes),
            parameters(CASES[name]),
            f"{row['changed']:.1%}",
            "{:.2f}, {:.2f}".format(*row["certainty"]),
            f"{row['mean']:.1e}",
            f"{row['max']:.1e}",
            str(row["above 1e-4"]),
            *(f"{row['float64 max'][side]:.1e}" for side in ("ours", "theirs")),
            f"{row['agreement']:.4%}",
        ]
        for name, row in measured.items()
    ]
    head = [
        "normalisation, preset", "size", "labels", "w1, alpha, beta; w2, gamma", "changed",
        "certainty", "mean", "max", "pixels above 1e-4",
        "ours to float64", "theirs to float64", "same label",
    ]  # fmt: skip
    return [
        "# The fully connected CRF against pydensecrf",
        "Both run in float32 on the CPU for 10 iterations, over all pixels of drawn images and "
        "scores: regions of a colour, shaded and noisy; scores on cells of 8 x 8 that are wrong in "
        "places. changed: share of the pixels whose label changes. certainty: the largest marginal "
        "of a pixel, before and after, on average. mean and max: of the difference of a marginal. "
        f"Allowed are {crf_cases.TOLERANCE:.0e} on average, and another label at "
        f"{1 - crf_cases.AGREEMENT:.2%} of the pixels. `pydensecrf` has its unary from "
        "`unary_from_softmax`. `none` is pydensecrf's NO_NORMALIZATION, the plain sum of the "
        "lattice, with weights to match. `diagonal` and `full` have pydensecrf's 1-D and 2-D forms "
        "in place of w1 and w2.",
        pages.table(head, rows),
        "to float64: the largest difference from ours in float64. Large differences concern a few "
        "neighbouring pixels: with whole colours, places and deviations some points lie exactly on "
        "a face between two simplices. There rounding decides whether the lattice has a vertex in "
        "which no point has a share; if it has, the blur passes through it.",
        f"The tests repeat the smaller ones, the marked slow tests all, from the label of every "
        f"pixel and the marginals of every {crf_cases.EVERY[crf_cases.SMALL]}th or "
        f"{crf_cases.EVERY[crf_cases.LARGE]}th in both directions in `tests/fixtures/crf`.",
    ]


def parameters(case: Case) -> str:
    """The cell of the CRF's parameters."""
    one = case.crf
    weights = (one.w1, one.w2) if case.compatibility == "potts" else ("-", "-")
    return f"{weights[0]}, {one.theta_alpha}, {one.theta_beta}; {weights[1]}, {one.theta_gamma}"


if __name__ == "__main__":
    main()

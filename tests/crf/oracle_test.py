"""The CRF against fixtures of pydensecrf's marginals: see experiments/parity/crf.py."""

import numpy as np
import pytest

from experiments.parity import crf_cases
from experiments.parity.crf_cases import CASES


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if case.size == crf_cases.LARGE else [])
        for name, case in CASES.items()
    ],
)
def test_marginals_equal_pydensecrf_s(name):
    case = CASES[name]
    with np.load(crf_cases.FIXTURES / f"{name}.npz") as file:
        labels, marginals = file["labels"], file["marginals"]
    found = crf_cases.ours(case)
    assert np.abs(crf_cases.kept(case, found) - marginals).mean() <= crf_cases.TOLERANCE
    assert np.mean(crf_cases.labels(found) == labels) >= crf_cases.AGREEMENT
    # The fixture is not trivial: labels change, and pixels stay in doubt.
    assert np.mean(labels != crf_cases.draw(case)[1].argmax(-1)) > 0.05
    assert np.mean(marginals.max(-1) < 0.99) > 0.01

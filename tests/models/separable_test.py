"""Maps weighed by two matrices: the forms of GPUs and of other devices, and their transposes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import pooling, separable
from segjax.models.resize import Resize

CASES = {
    "grown": Resize("corners").matrices((5, 6), (9, 12)),
    "shrunk": Resize("half_pixel").matrices((9, 12), (5, 6)),
    "far grown": Resize("half_pixel").matrices((2, 1), (40, 50)),
    "transposed": Resize("transposed", 2, offset=1).matrices((4, 5), (8, 9)),
    "means": tuple(pooling.bins_matrix(n, 3) for n in (40, 39)),
    "one axis": (np.eye(4, dtype=np.float32), pooling.bins_matrix(30, 2)),
    "nothing": (np.zeros((3, 4), np.float32), np.ones((2, 5), np.float32)),
}


def expected(x, rows, cols):
    return np.einsum("Hh,Ww,bhwc->bHWc", *(a.astype(np.float64) for a in (rows, cols, x)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gpu", [False, True])
def test_a_map_and_its_gradient_are_weighed_as_by_float64(case, dtype, gpu, monkeypatch):
    if gpu:  # runs anywhere
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, *, cuda, **_: cuda(x))
    rows, cols = CASES[case]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, rows.shape[1], cols.shape[1], 3)), dtype)
    got, pull = jax.vjp(lambda x: separable.weighed(x, rows, cols, dtype), x)
    assert got.dtype == x.dtype
    bound = 2e-6 if dtype == "float32" else 0.004  # half the step of the last digit
    for found, by_hand in (
        (got, expected(np.asarray(x, np.float64), rows, cols)),
        (pull(got)[0], expected(np.asarray(got, np.float64), rows.T, cols.T)),
    ):
        most = max(1.0, np.abs(by_hand).max())
        np.testing.assert_allclose(np.asarray(found, np.float64), by_hand, atol=bound * most)


@pytest.mark.parametrize(("case", "steps"), [("grown", 1), ("means", 0), ("one axis", 1)])
def test_gpus_gather_where_rows_have_few_weights_and_multiply_elsewhere(case, steps):
    rows, cols = CASES[case]
    x = jax.ShapeDtypeStruct((1, rows.shape[1], cols.shape[1], 3), jnp.float32)
    text = str(jax.make_jaxpr(lambda x: separable._on_gpu(x, rows, cols))(x))
    assert ("gather" in text) == bool(steps)
    assert ("dot_general" in text) == (case != "grown")

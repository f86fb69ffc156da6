import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.crf import kernels, permutohedral
from segjax.errors import InputError
from tests.crf import made

SIZE, CANVAS = (5, 7), (7, 8)
ALPHA, BETA, GAMMA = 4.0, 30.0, 1.5
KERNELS = ("bilateral", "lattice", "gaussian")
ALL = [(kernel, how) for kernel in KERNELS for how in kernels.NORMALIZATIONS]


def make(kernel: str, image, how: str, mask=None) -> kernels.Filter:
    kind = {"normalization": how, "mask": mask}
    if kernel == "bilateral":
        return kernels.bilateral(image, ALPHA, BETA, capacity=6 * image[..., 0].size, **kind)
    return kernels.spatial(image.shape[:2], GAMMA, by=kernel, **kind)


@jax.jit
def _filtered(image, values, mask):
    return {(kernel, how): make(kernel, image, how, mask)(values) for kernel, how in ALL}


@functools.cache
def dense() -> dict[tuple[str, str], np.ndarray]:
    """The matrix of every filter, [N, N]: the filtered identity."""
    found = _filtered(made.photo(SIZE), np.eye(SIZE[0] * SIZE[1], dtype=np.float32), None)
    return {name: np.asarray(matrix) for name, matrix in found.items()}


@pytest.mark.parametrize(("kernel", "how"), ALL)
def test_messages_follow_the_definitions_of_the_normalisations(kernel, how):
    expected = made.normalized(dense()[kernel, "none"].astype(np.float64), how)
    np.testing.assert_allclose(dense()[kernel, how], expected, rtol=1e-5, atol=1e-6)


def test_the_kernels_are_functions_of_positions_and_colours():
    places = made.places(SIZE) / GAMMA
    exact = {
        "bilateral": made.Lattice(made.pixels(made.photo(SIZE), ALPHA, BETA))(np.eye(35)),
        "lattice": made.Lattice(places)(np.eye(35)),
        "gaussian": made.kernel(places),
    }
    for kernel, expected in exact.items():
        np.testing.assert_allclose(dense()[kernel, "none"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_is_its_own_weighted_mean(kernel):
    np.testing.assert_allclose(dense()[kernel, "after"].sum(1), 1, rtol=1e-6)
    assert np.ptp(dense()[kernel, "mean"].sum(1)) > 0.5  # the border receives less


@functools.cache
def on_canvas() -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Values on a canvas, and every filter's result with a mask of the image in its corner."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (*CANVAS, 3)).astype(np.uint8)
    image[: SIZE[0], : SIZE[1]] = made.photo(SIZE)
    mask = np.zeros(CANVAS, bool)
    mask[: SIZE[0], : SIZE[1]] = True
    values = rng.normal(size=(*CANVAS, 2)).astype(np.float32)
    found = _filtered(image, values.reshape(-1, 2), mask)
    return values, {name: np.asarray(x).reshape(*CANVAS, 2) for name, x in found.items()}


@pytest.mark.parametrize(("kernel", "how"), ALL)
def test_an_image_in_the_corner_of_a_masked_canvas_is_filtered_as_alone(kernel, how):
    values, found = on_canvas()
    height, width = SIZE
    expected = dense()[kernel, how] @ values[:height, :width].reshape(-1, 2)
    got = found[kernel, how].copy()
    np.testing.assert_allclose(got[:height, :width].reshape(-1, 2), expected, rtol=1e-5, atol=1e-5)
    got[:height, :width] = 0
    assert not got.any()


@jax.jit
def _needed(mask, theta):
    features = kernels._places(mask.shape, theta, jnp.float32).reshape(2, -1)
    return permutohedral.build(features, 1, mask.ravel()).needed


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.77, 1.0, 1.9, 3.0, 7.3, 49.0, 1000.0])
def test_the_spatial_lattice_never_overflows_at_any_size(theta):
    for size in ((1, 1), (1, 2), (3, 1), (1, 48), (2, 2), (7, 5), (32, 1), (17, 31), (32, 48)):
        mask = np.zeros((32, 48), bool)
        mask[: size[0], : size[1]] = True
        assert 3 <= int(_needed(mask, theta)) <= kernels._enough(size, theta)


@pytest.mark.parametrize("theta", [1.0, 3.0])
def test_the_capacity_of_the_spatial_lattice_is_at_most_twice_the_need(theta):
    size = (90, 120)
    assert kernels._enough(size, theta) < 2 * int(_needed(np.ones(size, bool), theta))


def test_a_traced_deviation_gets_the_largest_capacity():
    plain = functools.partial(kernels.spatial, (4, 5), by="lattice", normalization="none")
    traced = jax.eval_shape(plain, jnp.float32(3)).operator
    assert traced.capacity == 3 * 4 * 5
    assert jax.eval_shape(lambda: plain(3.0, capacity=7)).operator.capacity == 7


def test_a_filter_reports_the_capacity_it_needs():
    @functools.partial(jax.jit, static_argnames="capacity")
    def run(capacity):
        made_of = kernels.bilateral(
            made.photo(SIZE), ALPHA, BETA, capacity=capacity, normalization="none"
        )
        return made_of.operator.needed, made_of.overflow

    needed, overflow = run(6 * 35)
    assert overflow == 0
    assert run(int(needed) - 1) == (needed, needed)
    by_axes = kernels.spatial(SIZE, GAMMA, by="gaussian", normalization="none")
    assert by_axes.overflow == 0


def test_unknown_kinds_are_refused_by_name():
    with pytest.raises(InputError, match="normalization: unknown 'row'; known: after, before"):
        kernels.spatial(SIZE, GAMMA, by="gaussian", normalization="row")
    with pytest.raises(InputError, match="spatial: unknown 'fft'; known: lattice, gaussian"):
        kernels.spatial(SIZE, GAMMA, by="fft", normalization="after")

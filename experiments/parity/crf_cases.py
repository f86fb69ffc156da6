"""Our side of `crf.py`: its cases, and the marginals of our CRF.

The tests compute the same errors; nothing here needs pydensecrf.
"""

import dataclasses

import jax
import numpy as np

from experiments.shared import pages
from segjax import crf
from segjax.crf import DenseCrf, kernels, mean_field

FIXTURES = pages.ROOT / "tests" / "fixtures" / "crf"
SMALL, LARGE, TINY = (240, 320), (375, 500), (48, 64)
EVERY = {SMALL: 11, LARGE: 17, TINY: 3}  # pixels kept of the marginals, in both directions
TOLERANCE = 1e-6  # of a marginal, on average
AGREEMENT = 0.9999  # of the pixels' labels


@dataclasses.dataclass(frozen=True)
class Case:
    """A CRF on a drawn image.

    Attributes:
        crf: its parameters.
        size: of the image.
        capacity: of the bilateral lattice.
        classes: K.
        compatibility: "potts", with the CRF's weights; or "diagonal" or "full", see `energies`.
    """

    crf: DenseCrf
    size: tuple[int, int]
    capacity: int
    classes: int = 21
    compatibility: str = "potts"


def _changed(preset: str, normalization: str, **changes: float) -> DenseCrf:
    return crf.build(preset, normalization=normalization, iterations=10, **changes)


_FEW = _changed("deeplab_v1", "symmetric", theta_alpha=20.0, theta_beta=13.0)
CASES = {
    "after_deeplab_v1": Case(_changed("deeplab_v1", "after"), SMALL, 51_000),
    "before_deeplab_v2": Case(_changed("deeplab_v2_resnet101", "before"), SMALL, 118_000),
    "symmetric_pydensecrf": Case(_changed("pydensecrf_example", "symmetric"), SMALL, 7_000),
    "none_deeplab_v1": Case(_changed("deeplab_v1", "none", w1=0.03, w2=0.06), SMALL, 51_000),
    "after_deeplab_v2": Case(_changed("deeplab_v2_resnet101", "after"), LARGE, 200_000),
    "before_pydensecrf": Case(_changed("pydensecrf_example", "before"), LARGE, 10_500),
    "symmetric_deeplab_v1": Case(_changed("deeplab_v1", "symmetric"), LARGE, 88_000),
    "none_pydensecrf": Case(
        _changed("pydensecrf_example", "none", w1=0.002, w2=0.04), LARGE, 10_500
    ),
    "diagonal": Case(_FEW, TINY, 3_000, 5, "diagonal"),
    "full": Case(_FEW, TINY, 3_000, 5, "full"),
}


def draw(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The image and the scores, uint8 [H, W, 3] and float32 [H, W, K], from whole numbers alone.

    The image has regions of one colour, shaded and noisy. The scores favour one label per cell of
    8 x 8 pixels, which is read off at a place nearby, with noise of the cells and of the pixels.
    """
    height, width = case.size
    rng = np.random.default_rng([height, width, case.classes])
    y, x = np.mgrid[:height, :width]
    count = 40
    sites = rng.integers(0, [height, width], (count, 2))
    apart = (y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2
    region = apart.argmin(-1)
    slopes = rng.integers(-30, 31, (2, count, 3))[:, region]
    shade = slopes[0] * y[..., None] // height + slopes[1] * x[..., None] // width
    noise = rng.integers(-6, 7, (3, height, width, 3)).sum(0)
    image = rng.integers(40, 216, (count, 3))[region] + shade + noise
    cells = -(-height // 8), -(-width // 8)
    beside = rng.integers(-5, 6, (2, *cells))[:, y // 8, x // 8]
    seen = region[
        np.clip(y // 8 * 8 + 4 + beside[0], 0, height - 1),
        np.clip(x // 8 * 8 + 4 + beside[1], 0, width - 1),
    ]
    mistaken = rng.integers(0, 3, cells)[y // 8, x // 8] == 0
    label = np.where(mistaken, *rng.integers(0, case.classes, (2, count))[:, seen])
    eighths = 18 * (label[..., None] == np.arange(case.classes))
    eighths = eighths + rng.integers(-5, 6, (*cells, case.classes))[y // 8, x // 8]
    eighths = eighths + rng.integers(-6, 7, (height, width, case.classes))
    return np.clip(image, 0, 255).astype(np.uint8), (eighths / 8).astype(np.float32)


def energies(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """float32 [K] or [K, K], symmetric, of the bilateral and of the spatial kernel."""
    rng = np.random.default_rng(case.classes)
    shape = (case.classes,) * (1 if case.compatibility == "diagonal" else 2)
    found = []
    for weight in (40, 24):
        eighths = rng.integers(-8, 9, shape)
        eighths = eighths - weight * (1 if eighths.ndim == 1 else np.eye(case.classes, dtype=int))
        found.append(((eighths + eighths.T) / 16).astype(np.float32))
    return found[0], found[1]


def ours(case: Case, dtype: str = "float32") -> np.ndarray:
    """Marginals, [H, W, K]; float64 has to be enabled."""
    image, logits = draw(case)

    @jax.jit
    def run(image, logits):
        if case.compatibility == "potts":
            scores, lacking = case.crf(image, logits, capacity=case.capacity)
        else:
            scores, lacking = _by_energies(case, image, logits)
        return jax.nn.softmax(scores), lacking

    found, lacking = run(image, logits.astype(dtype))
    assert lacking == 0, (case, int(lacking))
    return np.asarray(found)


def _by_energies(case: Case, image, logits) -> tuple[jax.Array, jax.Array]:
    one, kind = case.crf, {"normalization": case.crf.normalization, "dtype": logits.dtype}
    filters = (
        kernels.bilateral(image, one.theta_alpha, one.theta_beta, capacity=case.capacity, **kind),
        kernels.spatial(case.size, one.theta_gamma, by="lattice", **kind),
    )
    flat = logits.reshape(-1, case.classes)
    found = mean_field.infer(flat, filters, energies(case), iterations=one.iterations)
    return found.reshape(logits.shape), filters[0].overflow


def labels(marginals: np.ndarray) -> np.ndarray:
    """The most probable label of each pixel, uint8 [H, W]."""
    return marginals.argmax(-1).astype(np.uint8)


def kept(case: Case, marginals: np.ndarray) -> np.ndarray:
    """The marginals that are in the fixture."""
    return marginals[:: EVERY[case.size], :: EVERY[case.size]]

"""The fully connected CRF as the last layer of a network, trained with it.

Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr: Conditional Random Fields as
Recurrent Neural Networks, ICCV 2015.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import crf
from segjax.crf import kernels, mean_field
from segjax.errors import InputError, choose
from segjax.models import resize
from segjax.models.features import Scores

KEY = "config.model.crf"
ENOUGH = 6
"""Vertices a pixel that no image exceeds: the corners of a simplex in five dimensions."""


class CRFRNN(nnx.Module):
    """Iterations of mean field on a network's scores, with weights between all pairs of classes.

    In an iteration the messages of both kernels, weighted means over all pixels, are mixed by a
    K x K matrix each, summed, and turned into the cost of each class by a third (section 4). What
    fills a canvas up around an image takes part, as in the release.

    Args:
        num_classes: K.
        iterations: in training; more of them make gradients vanish (section 5.1).
        test_iterations: afterwards.
        theta_alpha, theta_beta: deviations of the bilateral kernel: pixels, and colour in units of
            0 to 255. They are not trained.
        theta_gamma: of the spatial kernel, in pixels.
        w1, w2: first weights of the bilateral and of the spatial kernel, times identity. The
            Caffe release trains from 5 and 3; the Keras release, which loads trained ones, has 1.
        spatial: how the spatial kernel is summed, see `kernels.spatial`.
        vertices: of the bilateral lattice, a pixel: what there is room for. Photographs need less
            than 1 at 500 pixels and more the smaller they are; ENOUGH always does. Without room
            scores are NaN, and `Scores.overflow` says what would do.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        iterations: int = 5,
        test_iterations: int = 10,
        theta_alpha: float = 160.0,
        theta_beta: float = 3.0,
        theta_gamma: float = 3.0,
        w1: float = 5.0,
        w2: float = 3.0,
        spatial: str = "lattice",
        vertices: float = 2.0,
    ):
        choose(f"{KEY}.spatial", spatial, kernels.SPATIAL)
        above = {
            "theta_alpha": theta_alpha,
            "theta_beta": theta_beta,
            "theta_gamma": theta_gamma,
            "vertices": vertices,
        }
        for name, value in above.items():
            if not value > 0:
                raise InputError(f"{KEY}.{name}: {value}; it is above 0.")
        for name, value in {"iterations": iterations, "test_iterations": test_iterations}.items():
            if not (isinstance(value, int) and value >= 1):
                raise InputError(f"{KEY}.{name}: {value}; it is a whole number, 1 or more.")
        identity = jnp.eye(num_classes)
        self.bilateral_weights = nnx.Param(w1 * identity)
        self.spatial_weights = nnx.Param(w2 * identity)
        self.compatibility = nnx.Param(-identity)
        self.iterations, self.test_iterations = iterations, test_iterations
        self.theta_alpha, self.theta_beta = theta_alpha, theta_beta
        self.theta_gamma = theta_gamma
        self.spatial = spatial
        self.vertices = vertices
        self.training = True

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Called by `nnx.view`: whoever takes the norms' averages is not training.

        Not `deterministic`, which stays off where an evaluation samples with dropout.
        """
        if use_running_average is not None:
            self.training = not use_running_average

    def __call__(self, scores: Scores, image: jax.Array) -> Scores:
        """Scores [B, h, w, K], [B, H, W, 3] -> Scores float32 [B, H, W, K] of the image's pixels.

        Args:
            scores: of a head.
            image: RGB of 0 to 255, as large as the network's input.
        """
        size = image.shape[1:3]
        logits = resize.brought(scores.values, *scores.matrices(size))
        iterations = self.iterations if self.training else self.test_iterations
        costs = [
            jnp.matmul(self.compatibility[...], weights[...], precision="highest")
            for weights in (self.bilateral_weights, self.spatial_weights)
        ]
        near = kernels.spatial(size, self.theta_gamma, by=self.spatial, normalization="after")

        def refined(row):
            logits, image = row
            alike = kernels.bilateral(
                image,
                self.theta_alpha,
                self.theta_beta,
                capacity=math.ceil(min(self.vertices, ENOUGH) * math.prod(size)),
                normalization="after",
            )
            unary = logits.reshape(-1, logits.shape[-1])
            found = mean_field.infer(unary, (alike, near), costs, iterations=iterations)
            return found.reshape(logits.shape), alike.overflow

        # In a loop over a batch that is spread over devices each would do all of it.
        spread = jax.device_count() > 1
        rows = logits, image
        values, overflow = jax.vmap(refined)(rows) if spread else crf.by_image(refined, rows)
        return Scores(values, resize.Resize("half_pixel", 1), overflow)


def cause(wanted: float) -> str:
    """Why there was no room for an image, and what to do: a sentence.

    Args:
        wanted: `crf_vertices_wanted` of `Scores.wanted`, above 0.
    """
    if wanted > ENOUGH:
        return (
            f"The image spans too many deviations for the CRF: {KEY}.theta_alpha or "
            f"{KEY}.theta_beta is too small."
        )
    return (
        f"{KEY}.vertices is too small: an image needs {math.ceil(100 * wanted) / 100:.2f} vertices "
        f"a pixel ({ENOUGH} are always enough; the number changes memory and time, no result)."
    )


def check(wanted: float) -> None:
    """Passes what was evaluated with room enough.

    Raises:
        InputError: of `cause`, if `wanted` is above 0.
    """
    if wanted > 0:
        raise InputError(f"{cause(float(wanted))} A run's is in its config.json.")

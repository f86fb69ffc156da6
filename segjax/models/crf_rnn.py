"""The fully connected CRF as the last layer of a network, trained with it.

Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr: Conditional Random Fields as
Recurrent Neural Networks, ICCV 2015.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import arrays, crf, strips
from segjax.crf import kernels, mean_field
from segjax.errors import InputError, choose
from segjax.models import resize
from segjax.models.features import Scores

KEY = "config.model.crf"
ENOUGH = 6
"""Vertices a pixel that suffice for every image: the corners of a simplex in five dimensions."""


class CRFRNN(nnx.Module):
    """Mean field on a network's scores, with learned weights between all pairs of classes.

    In every iteration each of the two kernels sends messages, weighted means over all pixels. A
    K x K matrix mixes the messages of each kernel, and a third one turns their sum into the cost
    of each class (section 4). As in the release, pixels that only pad an image take part.

    Args:
        num_classes: number of classes, K.
        iterations: number of iterations in training; with more, gradients vanish (section 5.1).
        test_iterations: number of iterations in evaluation.
        theta_alpha, theta_beta: standard deviations of the bilateral kernel, in pixels and in
            units of colour of 0 to 255. They are not trained.
        theta_gamma: standard deviation of the spatial kernel, in pixels; not trained.
        w1, w2: initial weights of the bilateral and the spatial kernel, times the identity. The
            Caffe release trains from 5 and 3; the Keras release, which loads trained weights, has
            1.
        spatial: form of the spatial kernel, "lattice" or "gaussian": see `kernels.spatial`.
        vertices: capacity of the bilateral lattice, in vertices a pixel. Photographs of 500 pixels
            need less than 1, smaller ones more; ENOUGH always suffices. An image that does not fit
            gets NaN scores, and `Scores.overflow` holds the number of vertices that it needs.

    Raises:
        InputError: if an option has a value that is not allowed.
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
        positive = {
            "theta_alpha": theta_alpha,
            "theta_beta": theta_beta,
            "theta_gamma": theta_gamma,
            "vertices": vertices,
        }
        for name, value in positive.items():
            if not value > 0:
                raise InputError(f"{KEY}.{name} must be above 0, got {value}.")
        for name, value in {"iterations": iterations, "test_iterations": test_iterations}.items():
            if not (isinstance(value, int) and value >= 1):
                raise InputError(f"{KEY}.{name} must be a whole number, 1 or more; got {value}.")
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
        """Receives the mode from `nnx.view`: a view whose norms use running averages evaluates.

        `deterministic` does not tell: it stays off if an evaluation samples with dropout.
        """
        if use_running_average is not None:
            self.training = not use_running_average

    def __call__(self, scores: Scores, image: jax.Array) -> Scores:
        """Scores [B, h, w, K], [B, H, W, 3] -> Scores float32 [B, H, W, K] on the image's pixels.

        Args:
            scores: scores of a head.
            image: uint8 or float, RGB of 0 to 255, as large as the network's input.
        """
        size = arrays.map_size(image)
        logits = resize.apply_or_crop(scores.values, *scores.matrices(size))
        iterations = self.iterations if self.training else self.test_iterations
        costs = [
            jnp.matmul(self.compatibility[...], weights[...], precision="highest")
            for weights in (self.bilateral_weights, self.spatial_weights)
        ]
        spatial = kernels.spatial(size, self.theta_gamma, by=self.spatial, normalization="after")

        def refined(row):
            logits, image = row
            bilateral = kernels.bilateral(
                image,
                self.theta_alpha,
                self.theta_beta,
                capacity=math.ceil(min(self.vertices, ENOUGH) * math.prod(size)),
                normalization="after",
            )
            unary = logits.reshape(-1, logits.shape[-1])
            result = mean_field.infer(unary, (bilateral, spatial), costs, iterations=iterations)
            return result.reshape(logits.shape), bilateral.overflow

        # In a loop over a batch that is split over devices, every device would compute all of it.
        several = jax.device_count() > 1
        rows = logits, strips.whole(image)  # the lattice of an image is built on all its devices
        values, overflow = jax.vmap(refined)(rows) if several else crf.by_image(refined, rows)
        return Scores(values, resize.Resize("half_pixel", 1), overflow)


def cause(vertices: float) -> str:
    """A sentence that says why the lattice was too small for an image, and what to change.

    Args:
        vertices: `crf_vertices_wanted` from `Scores.crf_scalars`, above 0.
    """
    if vertices > ENOUGH:
        return (
            f"The image spans too many deviations for the CRF: {KEY}.theta_alpha or "
            f"{KEY}.theta_beta is too small."
        )
    return (
        f"{KEY}.vertices is too small: an image needs {math.ceil(100 * vertices) / 100:.2f} "
        f"vertices a pixel ({ENOUGH} always suffice; the number changes memory and time, not the "
        "result)."
    )


def check(vertices: float) -> None:
    """Checks that the lattice was large enough for every image.

    Args:
        vertices: `crf_vertices_wanted` from `Scores.crf_scalars`.

    Raises:
        InputError: with `cause`, if `vertices` is above 0.
    """
    if vertices > 0:
        raise InputError(f"{cause(float(vertices))} The value of a run is in its config.json.")

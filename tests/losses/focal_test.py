import jax
import jax.numpy as jnp
import numpy as np

from segjax.losses import focal, pixels
from tests.losses import made


def test_focal_of_gamma_0_is_cross_entropy_and_certainty_has_a_finite_slope():
    logits, label = made.random_scores().values, jnp.asarray(made.random_label((4, 5)))
    np.testing.assert_allclose(
        focal.focal(logits, label, gamma=0.0), pixels.cross_entropy(logits, label), rtol=1e-6
    )
    certain, label = jnp.array([[[[200.0, 0, 0], [0, 200.0, 0]]]]), jnp.zeros((1, 1, 2), jnp.uint8)
    for gamma in (0.5, 2.0):
        gradient = jax.grad(lambda x, g=gamma: focal.focal(x, label, gamma=g).sum())(certain)
        np.testing.assert_allclose(gradient[0, 0], [[0, 0, 0], [-1, 1, 0]], atol=1e-6)

"""From RGB of 0 to 255 to the input of a backbone."""

import jax.numpy as jnp
import numpy as np

from segjax.models.preprocess import Preprocess


def test_images_are_normalised_channel_by_channel():
    image = np.array([[10, 20, 30], [110, 220, 130]], np.uint8)
    prepare = Preprocess(mean=(10.0, 20.0, 40.0), std=(1.0, 2.0, 5.0), bgr=False)
    expected = [[0, 0, -2], [100, 100, 18]]
    got = prepare(jnp.asarray(image))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected)
    swapped = Preprocess(mean=(10.0, 20.0, 40.0), std=(1.0, 2.0, 5.0), bgr=True)
    np.testing.assert_allclose(swapped(jnp.asarray(image)), np.array(expected)[:, ::-1])

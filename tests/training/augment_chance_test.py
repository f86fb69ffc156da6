"""What happens to a share of the images alone."""

import cv2
import numpy as np

from tests.training.augment_test import CANVAS, repeated, run


def test_a_share_of_the_images_is_turned():
    image = np.zeros((*CANVAS, 3))
    image[:, : CANVAS[1] // 2] = 200  # an edge that any turn moves
    rows = repeated(image, np.zeros(CANVAS), rows=400)
    turned, _ = run(rows, rotation=30.0, rotation_chance=0.25)
    moved = (turned != image).any(axis=(1, 2, 3))
    assert 0.25 - 0.07 < moved.mean() < 0.25 + 0.07
    always, _ = run(rows, rotation=30.0)
    assert (always != image).any(axis=(1, 2, 3)).mean() > 0.99
    np.testing.assert_array_equal(turned[moved], always[moved])


def test_a_share_of_the_images_is_smoothed_as_opencv_does():
    image = np.random.default_rng(0).integers(0, 256, (*CANVAS, 3)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 5, CANVAS)
    images, labels = run(repeated(image, label, rows=200), blur=0.5)
    expected = cv2.GaussianBlur(image, (5, 5), 0)
    blurred = np.array([np.abs(found - expected).max() < 1e-2 for found in images])
    assert 0.4 < blurred.mean() < 0.6
    np.testing.assert_array_equal(images[~blurred], np.stack([image] * (~blurred).sum()))
    assert (labels == label).all()

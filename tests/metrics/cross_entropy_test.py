"""The cross-entropy of an evaluation."""

import math

import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.metrics.cross_entropy import CrossEntropy
from segjax.metrics.metric import Pixels, add
from tests import tiny
from tests.metrics import made

WEIGHTS = (1.0, 2.0, 0.5, 1.0, 3.0)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_the_mean_of_weighted_losses_over_labelled_pixels(weights):
    logits, label = made.scored()
    metric = CrossEntropy(tiny.SPEC, weights)
    total = add({}, metric.count(Pixels.of(logits, label)), by_image=metric.by_image)
    wide = logits.astype(np.float64)
    nll = np.log(np.exp(wide).sum(-1, keepdims=True)) - wide
    valid = label != VOID
    truth = np.where(valid, label, 0)
    each = np.take_along_axis(nll, truth[..., None].astype(int), -1)[..., 0]
    each = each * np.asarray(weights or np.ones(tiny.K))[truth]
    assert total["pixels"] == valid.sum()
    assert total["loss"] == pytest.approx(each[valid].sum(), rel=1e-5)
    assert metric.scores(total) == {"loss": pytest.approx(each[valid].mean(), rel=1e-5)}
    assert metric.describe(total, {})[0] == f"loss {metric.scores(total)['loss']:.4f}"


def test_the_loss_without_labelled_pixels_is_nan():
    metric = CrossEntropy(tiny.SPEC)
    assert math.isnan(metric.scores(metric.empty())["loss"])

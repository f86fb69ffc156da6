import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax.errors import InputError
from segjax.models.features import Features
from segjax.models.heads import classifier
from segjax.models.resize import Resize

K = 3


def make() -> tuple[classifier.Classifier, Features]:
    head = classifier.Classifier({"stage4": 4, "stage5": 5}, K, rngs=nnx.Rngs(params=0))
    rng = np.random.default_rng(0)
    head.classifier.bias[...] = jnp.asarray(rng.normal(size=K), jnp.float32)
    stages = {
        "stage4": jnp.asarray(rng.normal(size=(2, 5, 7, 4)), jnp.float32),
        "stage5": jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32),
    }
    return head, Features(stages, {"stage4": 16, "stage5": 32}, shifts={"stage5": (14.5, 14.5)})


def test_it_scores_the_deepest_stage():
    head, features = make()
    scores = head(features)
    x = np.asarray(features.stages["stage5"], np.float64)
    kernel, bias = (
        np.asarray(v[...], np.float64) for v in (head.classifier.kernel, head.classifier.bias)
    )
    np.testing.assert_allclose(scores.values, x @ kernel[0, 0] + bias, atol=1e-5)


def test_the_mean_of_its_map_is_the_score_after_average_pooling():
    head, features = make()
    pooled = features.stages["stage5"].mean((1, 2), keepdims=True)
    expected = head(Features({"stage5": pooled}, features.strides)).values
    np.testing.assert_allclose(
        head(features).values.mean((1, 2), keepdims=True), expected, atol=1e-5
    )


def test_its_map_is_resized_to_the_image_centre_on_centre():
    head, features = make()
    scores = head(features)
    assert scores.resize == Resize("half_pixel", 32, (-14.5, -14.5))
    rows, cols = scores.matrices((96, 128))
    assert rows[30].tolist() == [1, 0, 0]  # its first centre lies at 16 + 14.5 = 30.5
    assert cols[62].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("top", ["stage4", "stage5"])
def test_the_deepest_stage_is_the_last_one(top):
    channels = {"stage4": 4, "stage5": 4}
    if top == "stage4":
        del channels["stage5"]
    assert classifier.Classifier(channels, K, rngs=nnx.Rngs(params=0)).top == top


def test_a_backbone_with_a_border_is_refused():
    head, features = make()
    with pytest.raises(InputError, match="border \"same\", got 'caffe'"):
        head(dataclasses.replace(features, border="caffe"))

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import resize, row_blocks
from segjax.models.features import Scores
from segjax.models.resize import Resize
from tests.losses import made
from tests.losses.made import K


@pytest.mark.parametrize("height", [12, 13, 1])
@pytest.mark.parametrize("blocks", [1, 5, 1000])
def test_rows_come_back_in_order(height, blocks):
    label = made.random_label((height, 6))
    scores = made.random_scores((-(-height // 4), 2))

    def fn(logits, label):
        return jnp.argmax(logits, -1), label

    found = row_blocks.over(fn, scores, jnp.asarray(label), blocks=blocks)
    best, back = (row_blocks.join(x, height) for x in found)
    np.testing.assert_array_equal(back, label)
    logits = resize.apply(scores.values, *scores.matrices((height, 6)))
    np.testing.assert_array_equal(best, jnp.argmax(logits, -1))


def test_every_block_has_rows_from_the_whole_height():
    """Each device, which holds a strip of the image, then has a part of every block."""
    label = jnp.broadcast_to(jnp.arange(12, dtype=jnp.uint8)[:, None], (1, 12, 2))
    found = row_blocks.over(lambda _, label: label, made.random_scores(), label, blocks=4)
    np.testing.assert_array_equal(found[:, 0, :, 0], [[i, i + 4, i + 8] for i in range(4)])


def test_scores_of_a_resized_input_are_brought_to_the_label():
    label = made.random_label((20, 24))
    scores = made.random_scores((3, 3))
    found = row_blocks.over(
        lambda logits, _: logits, scores, jnp.asarray(label), blocks=5, seen=(10, 12)
    )
    logits = found.transpose(1, 2, 0, 3, 4).reshape(2, 20, 24, K)
    expected = resize.apply(scores.values, *scores.matrices((20, 24), (10, 12)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 5, 1000])
@pytest.mark.parametrize("size", [(13, 6), (14, 7)])
def test_scores_on_the_pixels_are_not_resized(size, blocks):
    """A head may give one row and one column more than the image has."""
    scores = made.random_scores((14, 8)).replace(resize=Resize("half_pixel", 1))
    label = jnp.asarray(made.random_label(size))

    def fn(logits, label):
        return logits[..., 0], label

    jaxpr = str(
        jax.make_jaxpr(
            lambda v: row_blocks.over(fn, Scores(v, scores.resize), label, blocks=blocks)
        )(scores.values)
    )
    assert "dot_general" not in jaxpr
    found = row_blocks.over(fn, scores, label, blocks=blocks)
    logits, back = (row_blocks.join(x, size[0]) for x in found)
    np.testing.assert_array_equal(back, label)
    np.testing.assert_array_equal(logits, scores.values[:, : size[0], : size[1], 0])

import json

import numpy as np
import pytest

from segjax.configs import default
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.evaluation import superpixel_vote
from segjax.metrics import confusion
from tests.study_test import COLUMNS


def recipe(**method):
    config = default.get_config()
    config.method = method
    return config


def example():
    """Two strips of 4 columns: classes 0 and 1 with a leak of one column, and a VOID row."""
    truth = np.zeros((6, 8), np.uint8)
    truth[:, 3:] = 1
    truth[0] = VOID
    prediction = np.zeros((6, 8), np.uint8)
    prediction[:, 4:] = 1
    prediction[:, 7] = 2  # outvoted
    return np.zeros((6, 8, 3), np.uint8), truth, prediction


def test_a_vote_mends_what_is_outvoted_and_the_oracle_bounds_it(tmp_path):
    vote = superpixel_vote.Vote(recipe(name=COLUMNS, count=2), 3)
    for _ in range(2):
        vote.add(*example())
    # Column 3 is class 1 and lies in the strip that votes 0: 5 of 40 pixels, twice.
    np.testing.assert_array_equal(vote.counts["vote"], [[30, 0, 0], [10, 40, 0], [0, 0, 0]])
    np.testing.assert_array_equal(vote.counts["oracle"], vote.counts["vote"])
    image, truth, prediction = example()
    network = confusion.report(2 * np.asarray(confusion.count(prediction, truth, 3), np.int64))
    assert network.pixel_accuracy == pytest.approx(60 / 80)
    path = vote.write(tmp_path / "eval-val.json", network, "abc")
    stored = json.loads(path.read_text())
    assert path.name == "eval-val-superpixels.json"
    assert stored["scores"]["vote"]["pixel_accuracy"] == pytest.approx(70 / 80)
    assert stored["regions_an_image"] == 2
    assert "75.00" in vote.table(network)


def test_finer_superpixels_raise_the_bound_to_the_truth():
    vote = superpixel_vote.Vote(recipe(name=COLUMNS, count=8), 3)
    vote.add(*example())
    assert vote.reports()["oracle"].pixel_accuracy == 1


@pytest.mark.parametrize(
    ("method", "said"),
    [({"name": ""}, "no config.method"), ({"name": "tests.study_test:bright"}, "needs a box")],
)
def test_a_recipe_without_superpixels_is_refused(method, said):
    with pytest.raises(InputError, match=said):
        superpixel_vote.Vote(recipe(**method), 3)

"""A classical method over a data set, with methods that are simple enough to know the answer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import classical, sharding, study
from segjax.classical import batches
from segjax.configs import default
from segjax.configuration import vocabulary
from segjax.data import catalog
from segjax.errors import InputError
from segjax.runs import run_folder


def columns(image: jax.Array, *, count: int) -> jax.Array:
    """`count` upright strips."""
    height, width = image.shape[:2]
    strip = jnp.arange(width, dtype=jnp.int32) * count // width
    return jnp.broadcast_to(strip, (height, width))


def bright(image: jax.Array, box: jax.Array) -> jax.Array:
    """What is bright inside the box; the loop's length depends on the image."""
    y, x = jnp.mgrid[: image.shape[0], : image.shape[1]]
    inside = (y >= box[0]) & (y < box[2]) & (x >= box[1]) & (x < box[3])
    level = jnp.mean(image[..., 0].astype(jnp.float32))
    level = jax.lax.while_loop(lambda v: v > 100, lambda v: v - 1, level)
    return ((image[..., 0] > level) & inside).astype(jnp.int32)


COLUMNS = f"{__name__}:columns"


def config(method: dict, **eval_keys):
    found = vocabulary.apply(default.get_config(), vocabulary.Words("scenes", smoke=True))
    found.method = method
    found.eval.update({"limit": 5, "batch_size": 8, "pictures": 2} | eval_keys)
    return found


def test_a_run_leaves_scores_rows_and_a_picture(tmp_path, capsys):
    study.run(config({"name": COLUMNS, "count": 4}), tmp_path)
    stored = json.loads((tmp_path / "eval-val.json").read_text())
    assert stored["rows"] == 5
    assert stored["scores"]["regions"] == stored["scores"]["pieces"] == 4
    assert stored["method"]["count"] == 4
    rows = np.load(tmp_path / "eval-val.npz")
    assert len(set(rows["name"].tolist())) == 5
    assert stored["scores"]["covering"] == pytest.approx(rows["covering"].mean())
    assert "covering" in capsys.readouterr().out
    assert (tmp_path / "pictures" / "val.png").exists()
    assert run_folder.read_config(tmp_path).method.count == 4


def test_the_folder_of_another_method_is_refused(tmp_path):
    study.run(config({"name": COLUMNS, "count": 4}), tmp_path)
    with pytest.raises(InputError, match=r"method.count \(4 there, 5 here\)"):
        study.run(config({"name": COLUMNS, "count": 5}), tmp_path)


def test_eight_devices_give_what_one_gives():
    images = np.random.default_rng(0).integers(0, 256, (8, 9, 11, 3)).astype(np.uint8)
    boxes = np.tile(np.array([1, 2, 8, 9], np.int32), (8, 1))
    alone = batches.over_batch(bright, sharding.make_mesh(1, jax.devices()[:1]))(images, boxes)
    spread = batches.over_batch(bright, sharding.make_mesh(1))(images, boxes)
    np.testing.assert_array_equal(alone, spread)
    for row in range(8):
        expected = bright(jnp.asarray(images[row]), jnp.asarray(boxes[row]))
        np.testing.assert_array_equal(spread[row], expected)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_any_batch_size_goes_with_any_number_of_devices(batch_size, tmp_path):
    study.run(config({"name": COLUMNS, "count": 4}, batch_size=batch_size), tmp_path)
    rows = np.load(tmp_path / "eval-val.npz")
    assert len(set(rows["name"].tolist())) == 5
    assert (rows["regions"] == 4).all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"split": "tset"}, "tset"),
        ({"limit": -1}, "config.eval.limit"),
    ],
)
def test_a_study_that_is_refused_leaves_no_run_folder(keys, said, tmp_path):
    with pytest.raises(InputError, match=said):
        study.run(config({"name": COLUMNS, "count": 4}, **keys), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_each_segment_of_the_right_size_is_a_target_with_its_box():
    human = np.zeros((10, 10), np.int32)
    human[2:6, 3:8] = 1  # 20 %
    human[9, 9] = 2  # 1 %
    human[:, 0] = -1
    image = np.zeros((10, 10, 3), np.uint8)
    (task,) = study.targets(7, image, human[None])  # 69 % and 1 % are none
    np.testing.assert_array_equal(task.box, [2, 3, 6, 8])
    assert task.index == 7
    assert (task.humans[0] == 1).sum() == 20
    assert (task.humans[0] == -1).sum() == 10


def test_a_method_with_a_box_is_scored_by_its_targets(tmp_path):
    study.run(config({"name": f"{__name__}:bright"}, limit=3), tmp_path)
    stored = json.loads((tmp_path / "eval-val.json").read_text())
    assert stored["scores"].keys() == {"iou"}
    assert 0 < stored["scores"]["iou"] < 1
    source = catalog.load_regions("scenes", size=(48, 64)).splits["val"]
    expected = sum(len(list(study.targets(i, *source[i]))) for i in (0, 50, 99))
    assert stored["rows"] == expected


def test_boundary_scores_come_from_added_counts_and_others_from_means():
    rows = [
        {"name": "a", "vi": 1.0, "f_right": 1, "f_drawn": 1, "f_found": 1, "f_true": 1},
        {"name": "b", "vi": 2.0, "f_right": 0, "f_drawn": 3, "f_found": 0, "f_true": 1},
    ]
    means = study.summary(rows)
    assert means["vi"] == 1.5
    assert means["boundary_precision"] == 0.25
    assert means["boundary_recall"] == 0.5


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "slick"}, "config.method.name: unknown 'slick'.*Did you mean \"slic\""),
        ({"name": COLUMNS}, "needs count; options: count"),
        ({"name": COLUMNS, "count": 3, "rows": 1}, "takes no 'rows'"),
        ({"name": "no.such:thing"}, "cannot import"),
        ({"name": f"{__name__}:nothing"}, "has no 'nothing'"),
    ],
)
def test_a_method_that_cannot_be_built_is_an_error_with_the_way_out(method, said):
    with pytest.raises(InputError, match=said):
        classical.build(**method)

"""Weights of the same classes in another order, and of other classes."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from segjax import class_order, initial_weights
from segjax.data.spec import hls_palette
from segjax.errors import InputError
from segjax.models.importers import weight_files
from segjax.network import Network, model_of
from tests import tiny

NAMES = ("road", "Car", "traffic sign", "sky", "tree")
OTHER_ORDER = ("sky", "traffic_sign", "tree", "car", "road")
ORDER = [3, 2, 4, 1, 0]  # of theirs, in NAMES


def spec(names: Sequence[str]):
    return dataclasses.replace(
        tiny.SPEC, classes=tuple(names), palette=hls_palette(len(names)),
        table=tuple((i, i) for i in range(len(names))),
    )  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A file of a network of NAMES, and the network."""
    model = model_of(tiny.short_config(), spec(NAMES))
    params, batch_stats = map(tiny.drawn, model.shapes())
    net = Network(tiny.awake(params), batch_stats, model)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    weight_files.write(path, net.arrays(), {"classes": NAMES})
    return path, net


def loaded(path, names: Sequence[str], **changes) -> Network:
    made = tiny.short_config(init__from=str(path), **changes)
    model = model_of(made, spec(names))
    start = initial_weights.start_of(made)
    start.check(model)
    return Network(*start.load(*model.draw(0), model=model), model)


def test_every_score_keeps_its_class(stored):
    path, net = stored
    image = np.random.default_rng(0).integers(0, 256, (1, *tiny.SIZE, 3)).astype(np.float32)
    before = np.asarray(net(image).values)
    after = np.asarray(loaded(path, OTHER_ORDER)(image).values)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, before[..., ORDER], rtol=1e-5, atol=1e-6)
    tiny.assert_same_bits(loaded(path, NAMES).arrays(), net.arrays())


def test_other_classes_are_refused_unless_their_layers_are_drawn_anew(stored):
    path, net = stored
    other = ("road", "car", "traffic sign", "sky", "lamp")
    with pytest.raises(InputError) as told:
        loaded(path, other)
    assert f"{path} (segjax) is of other classes than the data set: tree there, lamp here." in str(
        told.value
    )
    assert "Its score layers (head/score_pool3, head/score_pool4, head/score_top) would" in str(
        told.value
    )
    with pytest.raises(InputError, match="other classes"):
        loaded(path, other, init__skip=("head/score_top/*",))
    fresh = loaded(path, other, init__skip=("head/*",)).arrays()
    tiny.assert_same_bits(fresh["backbone/stem/kernel"], net.arrays()["backbone/stem/kernel"])
    assert not fresh["head/score_top/kernel"].any()


def test_classes_without_names_and_unknown_ones_go_by_number(stored, tmp_path, caplog):
    path, net = stored
    caplog.set_level("INFO", "absl")
    numbered = loaded(path, [f"class {i}" for i in range(5)])
    tiny.assert_same_bits(numbered.arrays(), net.arrays())
    assert "taken by their numbers" in caplog.text
    weight_files.write(tmp_path / "bare.safetensors", net.arrays(), {})
    tiny.assert_same_bits(loaded(tmp_path / "bare.safetensors", OTHER_ORDER).arrays(), net.arrays())


def test_axes_of_classes_are_found_in_every_part():
    made = tiny.short_config(model__crf={"w1": 2.0, "vertices": 6.0})
    axes = class_order.class_axes(model_of(made, spec(NAMES)))
    assert axes["crf/compatibility"] == (0, 1)
    assert axes["head/score_pool3/bias"] == (0,)
    assert axes["head/score_pool3/kernel"] == (3,)
    assert not [path for path in axes if path.startswith("backbone/")]
    assert jax.tree.leaves(axes)


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        (NAMES, NAMES, True),
        (NAMES, OTHER_ORDER, True),
        (NAMES, NAMES[:4], False),
        (NAMES, (*NAMES[:4], "bush"), False),
        (("a", "a", "b"), ("a", "b", "a"), False),  # which is which?
        (("a", "a", "b"), ("a", "a", "b"), True),
        (NAMES, [f"class {i}" for i in range(5)], False),
    ],
)
def test_the_same_classes_in_any_order(theirs, ours, same):
    assert class_order.same(theirs, ours) == same

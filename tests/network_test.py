"""A network as a pytree, and a run folder read without its data or its optimiser."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import network as networks
from segjax.data import catalog
from segjax.errors import InputError
from segjax.models import functional
from segjax.network import Network
from segjax.runs import run_folder
from segjax.training import optim
from tests import programs, tiny


@pytest.fixture(scope="module")
def net():
    return tiny.network(tiny.assemble(tiny.short_config()))


def image(rows: int = 2) -> np.ndarray:
    return tiny.batch(0, rows=rows)["image"]


def test_its_leaves_are_its_weights_and_its_model_is_static(net):
    leaves = jax.tree.leaves(net)
    assert len(leaves) == len(net.arrays()) == len(jax.tree.leaves((net.params, net.batch_stats)))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, net)
    assert isinstance(doubled, Network)
    assert doubled.model is net.model
    for path, array in doubled.arrays().items():
        np.testing.assert_array_equal(array, 2 * net.arrays()[path])
    assert "backbone/stem/kernel" in net.arrays()


def test_one_program_runs_with_all_weights_of_a_model_and_traces_once(net):
    traces = []

    @jax.jit
    def run(net, image):
        traces.append(1)
        return net(image).values

    first = run(net, image())
    second = run(jax.tree.map(lambda leaf: leaf * 0.5, net), image())
    again = run(net.replace(params=jax.tree.map(jnp.copy, net.params)), image())
    assert len(traces) == 1
    assert (np.asarray(first) != np.asarray(second)).any()
    np.testing.assert_array_equal(first, again)
    run(tiny.network(tiny.assemble(tiny.short_config())), image())
    assert len(traces) == 2  # another model, though it is of the same config


def test_its_scores_are_those_of_its_graph_after_preprocessing(net):
    module = functional.merge(net.model.graphs.inference, net.params, net.batch_stats)
    expected = module(net.model.preprocess(image()))[0]
    found = net(image())
    assert found.resize == expected.resize
    np.testing.assert_array_equal(found.values, expected.values)


def test_arrays_of_a_network_may_be_differentiated_and_mapped(net):
    def loss(net):
        return jnp.mean(net(image()).values ** 2)

    slope = jax.jit(jax.grad(loss))(net)
    assert isinstance(slope, Network)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((360, 480), 0.5, (180, 240)),
        ((33, 47), 1.0, (33, 47)),
        ((1, 3), 0.25, (1, 1)),
        ((35, 90), 2.0, (70, 180)),
    ],
)
def test_the_network_sees_an_image_of_the_scaled_size(size, scale, expected):
    scaled = networks.model_of(tiny.short_config(input_scale=scale), tiny.SPEC)
    assert scaled.seen(size) == expected
    fixed = networks.model_of(tiny.short_config(input_size=(224, 200)), tiny.SPEC)
    assert fixed.seen(size) == (224, 200)


def test_a_model_is_made_without_arrays_and_drawn_by_its_seed():
    model = networks.model_of(tiny.short_config(), tiny.SPEC)
    params, batch_stats = model.shapes()
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params))
    first, again, other = (model.draw(seed) for seed in (3, 3, 4))
    tiny.assert_same_bits(first, again)
    assert (first[0]["backbone"]["stem"]["kernel"] != other[0]["backbone"]["stem"]["kernel"]).any()
    assert jax.tree.structure(first) == jax.tree.structure((params, batch_stats))
    assert not model.has_crf
    assert networks.model_of(tiny.short_config(model__crf={"vertices": 6.0}), tiny.SPEC).has_crf


def test_a_classifier_counts_its_classes_and_has_no_names_for_them():
    model = networks.model_of(tiny.short_config(model__head={"name": "classifier"}), 300)
    assert model.num_classes == 300
    assert model.classes is None
    with pytest.raises(InputError, match="classifier of 300 classes"):
        _ = model.spec


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of four steps with averaged weights, evaluated at the second and the fourth."""
    path = tmp_path_factory.mktemp("network") / "run"
    changes = {"total_steps": 4, "every_steps__eval": 2, "loss__class_weights": "inverse"}
    programs.train_plainly(programs.config(**changes), path)
    return path


def stored(workdir, weights: str) -> dict[str, np.ndarray]:
    """Path -> array of the newest weights."""
    prefix = "ema/" if weights == "ema" else ""
    starts = (f"{prefix}params/", f"{prefix}batch_stats/")
    return {
        name.removeprefix(start): array
        for name, array in programs.final(workdir).items()
        for start in starts
        if name.startswith(start)
    }


def test_a_run_folder_is_read_without_data_or_optimiser(workdir, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("neither is needed")

    monkeypatch.setattr(optim, "build", refuse)
    monkeypatch.setattr(catalog, "load", refuse)
    for weights in ("raw", "ema"):
        run = networks.load(workdir, "latest", weights)
        expected = stored(workdir, weights)
        tiny.assert_same_bits(run.network.arrays(), expected)
        assert run.step == 4
        assert run.config.to_dict() == run_folder.read_config(workdir).to_dict()
        assert len(run.class_weights) == run.network.model.num_classes == 11
        assert run.network.model.spec.classes[0] == "sky"
        for leaf in jax.tree.leaves(run.network):
            assert len(leaf.sharding.device_set) == 8
            assert leaf.sharding.is_fully_replicated


def test_a_step_is_best_latest_or_a_number(workdir):
    steps = {which: networks.load(workdir, which).step for which in ("2", "4", "latest", "best")}
    assert (steps["2"], steps["4"], steps["latest"]) == (2, 4, 4)
    assert steps["best"] in (2, 4)
    with pytest.raises(InputError, match="no checkpoint '3'; steps: 2, 4"):
        networks.load(workdir, "3")
    with pytest.raises(InputError, match='"best", "latest" or a number, got .newest'):
        networks.load(workdir, "newest")


def test_a_network_lies_on_the_devices_asked_for(workdir):
    run = networks.load(workdir, "latest", devices=jax.devices()[2:4])
    assert run.mesh.devices.ravel().tolist() == jax.devices()[2:4]
    for leaf in jax.tree.leaves(run.network):
        assert leaf.sharding.device_set == set(jax.devices()[2:4])


def test_what_is_no_run_or_has_no_such_weights_is_one_line(workdir, tmp_path):
    with pytest.raises(InputError, match="is no run folder: it has no config.json"):
        networks.load(tmp_path)
    run_folder.claim(tmp_path, programs.config())
    with pytest.raises(InputError, match="has no checkpoints yet"):
        networks.load(tmp_path)
    other = tmp_path / "other"
    config = json.loads((workdir / "config.json").read_text())
    config["model"]["head"]["name"] = "fcn32s"
    del config["model"]["head"]["upsampling"], config["model"]["head"]["at_once"]
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config))
    (other / "checkpoints").symlink_to(workdir / "checkpoints")
    with pytest.raises(InputError, match="another model; extra: .*head/score_pool"):
        networks.load(other, "latest")


def test_averaged_weights_that_are_not_kept_are_refused(tmp_path):
    programs.train_plainly(programs.config(total_steps=1, ema_decay=0.0), tmp_path)
    with pytest.raises(InputError, match="keeps no averaged weights"):
        networks.load(tmp_path, "latest", "ema")

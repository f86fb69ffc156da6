"""CRF-RNN in a network: training, evaluation and runs with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import sharding
from segjax.data import catalog
from segjax.data.splits import open_split
from segjax.errors import InputError
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.result import Result
from segjax.models import functional
from segjax.models.crf_rnn import CRFRNN
from segjax.network import Network
from segjax.runs import event_log, run_folder
from segjax.training import assembly, optim
from tests import programs, tiny
from tests.models.crf_rnn_test import ROOM, run

PARAMS = ("bilateral_weights", "compatibility", "spatial_weights")


def config(**changes):
    """The short network with the CRF, on crops of 16 x 24."""
    quiet = {"augment__size": (16, 24), "optim__weight_decay": 0.0}
    return tiny.short_config(**{"model__crf": dict(ROOM)} | quiet | changes)


def assemble(devices: int = 1, **changes) -> assembly.Training:
    return tiny.assemble(config(**changes), devices)


@functools.cache
def step_of(devices: int, **changes):
    """What one step makes of awake weights: state and scalars, on the host."""
    training = assemble(devices, **changes)
    ts = tiny.awake_state(training)
    before = tiny.by_name(ts.params)
    after, scalars = training.step(ts, sharding.put_batch(training.mesh, tiny.batch(5)))
    return before, jax.device_get(after), jax.device_get(scalars)


def test_a_step_reaches_every_matrix_and_every_weight_of_the_network():
    before, ts, scalars = step_of(1)
    after = tiny.by_name(ts.params)
    assert {f"crf/{name}" for name in PARAMS} <= before.keys()
    assert scalars["skipped"] == scalars["crf_vertices_wanted"] == 0
    for name in before:
        assert np.isfinite(after[name]).all()
        assert (before[name] != after[name]).any(), name


@pytest.mark.parametrize(
    ("devices", "changes"), [(8, {}), (4, {"mesh__space": 2}), (1, {"accumulate": 2})]
)
def test_a_step_is_the_same_on_many_devices_and_in_parts(devices, changes):
    _, expected, expected_scalars = step_of(1)
    _, ts, scalars = step_of(devices, **changes)
    tiny.assert_close(ts.params, expected.params)
    tiny.assert_close(scalars, expected_scalars)


@pytest.mark.slow
def test_training_evaluation_and_sampling_give_it_the_image_of_0_to_255():
    """Not the backbone's normalised one. The test trains without augmentation and dropout."""
    trunk = {"name": "tests.tiny:Trunk", "batch_norm": False, "dropout": 1e-9}
    training = assemble(
        model__backbone=trunk,
        model__crf=ROOM | {"test_iterations": 5, "theta_alpha": 20.0, "theta_beta": 30.0},
        augment__size=tiny.SIZE,
        augment__scale=(1.0, 1.0),
        augment__flip=0.0,
        preprocess__bgr=True,
    )
    ts, batch = tiny.awake_state(training), tiny.batch(2, rows=4)
    network = tiny.network(training, ts)
    layer = CRFRNN(tiny.K, **training.config.model.crf)
    for name in PARAMS:
        getattr(layer, name)[...] = ts.params["crf"][name]
    head = tiny.assemble(config(model__backbone=trunk, model__crf=None, preprocess__bgr=True))
    without = {name: part for name, part in ts.params.items() if name != "crf"}
    scores = jax.jit(Network.__call__)(Network(without, {}, head.model), batch["image"])
    logits = run(layer, scores, jnp.asarray(batch["image"])).values

    np.testing.assert_allclose(
        jax.jit(Network.__call__)(network, batch["image"]).values, logits, rtol=1e-4, atol=1e-4
    )
    once, passes = (tiny.look(training, samples=samples)(network, batch) for samples in (0, 2))
    expected = once["counts"]["cross_entropy"]
    for found in (once, passes):
        assert np.mean(np.asarray(found["prediction"]) == logits.argmax(-1)) > 0.999
        loss = found["counts"]["cross_entropy"]["loss"]
        assert loss == pytest.approx(float(expected["loss"]), rel=1e-4)
    _, scalars = training.step(ts, batch)
    mean = float(expected["loss"] / expected["pixels"])
    assert scalars["loss"] == pytest.approx(mean, rel=1e-4)


def test_devices_exchange_no_images():
    """The devices exchange only sums and the conditions of loops."""
    training = assemble(8)
    batch = sharding.put_batch(training.mesh, tiny.batch(5))
    text = training.step.lower(training.state_shapes(), batch).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text
    assert "all-to-all" not in text


def test_a_network_without_a_crf_returns_nothing_new():
    training = tiny.assemble(tiny.short_config(model__crf=None))
    ts, batch = training.state_shapes(), tiny.batch(0)
    _, scalars = jax.eval_shape(training.step, ts, batch)
    assert scalars.keys() == {"loss", "grad_norm", "lr", "valid", "skipped"}
    out = jax.eval_shape(tiny.look(training), tiny.network(training, ts), batch)
    assert not any("crf" in key for key in out)
    assert "crf" not in ts.params


def test_its_matrices_may_have_another_learning_rate():
    params, _ = assemble().model.shapes()
    rates, decays = optim.multipliers(params, (("crf/*", 100.0, 0.0),))
    assert set(rates["crf"].values()) == {100.0}
    assert set(decays["crf"].values()) == {0.0}
    assert set(jax.tree.leaves(rates["backbone"])) == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"theta_delta": 1.0}, "model.crf: CRF-RNN takes no 'theta_delta'; options: .*theta_gamma"),
        ({"spatial": "box"}, "config.model.crf.spatial: unknown 'box'; known: lattice, gaussian"),
        ({"vertices": 0}, "config.model.crf.vertices must be above 0, got 0"),
        ({"theta_beta": float("nan")}, "config.model.crf.theta_beta must be above 0, got nan"),
        ({"iterations": 0}, "config.model.crf.iterations must be a whole number, 1 or more; got 0"),
        ({"test_iterations": 2.5}, "config.model.crf.test_iterations must be .*got 2.5"),
    ],
)
def test_a_wrong_option_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        assemble(model__crf=changes)


def test_several_scales_or_a_missing_image_are_refused():
    with pytest.raises(InputError, match="crf and multi_scale"):
        assemble(model__multi_scale={"scales": (1, 0.5), "align": "corners"})
    training = assemble()
    shapes = training.model.shapes()

    def without_image(arrays, x):
        return functional.merge(training.model.graphs.inference, *arrays)(x)

    with pytest.raises(InputError, match="no image of 0 to 255"):
        jax.eval_shape(without_image, shapes, jnp.zeros((1, 16, 24, 3)))


@pytest.mark.slow
def test_scores_of_an_auxiliary_head_do_not_change():
    aux = {"name": "conv", "stage": "fc7", "width": 4, "norm": {"name": "none"}}
    outputs = {}
    x, image = jnp.ones((1, 16, 24, 3)), jnp.full((1, 16, 24, 3), 90.0)
    for given in (None, ROOM):
        model = assemble(model__aux=aux, model__crf=given).model
        arrays = tiny.drawn(model.shapes())
        outputs[given is None] = functional.merge(model.graphs.inference, *arrays)(x, image=image)
    (plain, side), (refined, same) = outputs[True], outputs[False]
    tiny.assert_same_bits(same, side)
    assert refined.values.shape[1:3] == (16, 24) != plain.values.shape[1:3]
    assert side.overflow is None


def scenes_config(**changes):
    """Four steps on scenes that are seen at 24 x 32, with statistics of the batch and dropout."""
    small = {"input_scale": 0.5, "augment__size": (24, 32), "total_steps": 4, "eval__limit": 4}
    return programs.config(**{"model__crf": dict(ROOM)} | small | changes)


def evaluated(made, views: str = "") -> Result:
    dataset = catalog.load(**made.data)
    training = assembly.assemble(made, dataset.spec, None, jax.devices()[:1])
    split = open_split(dataset, "val")
    protocol = protocols.resolve(made, protocols.EXACT, split="val", views_text=views)
    evaluator = Evaluator(made, training.model, training.mesh, split, protocol)
    return evaluator(tiny.network(training))


VIEWS = [
    "single",
    pytest.param("single, samples=2", marks=pytest.mark.slow),
    pytest.param("single, tile=(20, 24), flip=True", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("views", VIEWS)
def test_every_protocol_runs_it_or_says_that_vertices_are_lacking(views):
    result = evaluated(scenes_config(), views)
    assert np.isfinite(result.scalars()["loss"])
    assert result.examples == 4
    with pytest.raises(InputError, match=r"crf.vertices is too small.* config.json"):
        evaluated(scenes_config(model__crf={"vertices": 0.05}), views)


def test_norm_statistics_can_be_estimated_again():
    trunk = {"name": "tests.tiny:Trunk", "batch_norm": True, "dropout": 0}
    training = assemble(model__backbone=trunk)
    found = training.batch_statistics(tiny.network(training), tiny.batch(3))
    assert np.isfinite(tiny.by_name(found)["backbone/norm/mean"]).all()


@pytest.mark.slow
def test_training_without_room_ends_with_the_cause_and_continues_with_more_vertices(tmp_path):
    with pytest.raises(InputError, match="3 steps in a row") as told:
        programs.train_plainly(scenes_config(model__crf={"vertices": 0.05}), tmp_path)
    words = str(told.value).split()
    assert "config.model.crf.vertices is too small: an image needs" in str(told.value)
    assert 0.3 < float(words[words.index("needs") + 1]) <= 6
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="another config: model.crf.w1"):
        programs.train_plainly(scenes_config(model__crf=ROOM | {"w1": 4.0}), tmp_path)
    programs.train_plainly(scenes_config(), tmp_path)
    assert run_folder.read_config(tmp_path).model.crf.vertices == ROOM["vertices"]
    assert programs.final(tmp_path)["step"] == 4
    events = event_log.read(tmp_path)
    lacking = {e["step"]: e["train/crf_vertices_wanted"] for e in events if "train/loss" in e}
    assert sorted(lacking) == [1, 2, 3, 4]
    assert lacking[3] > 0 == lacking[4]

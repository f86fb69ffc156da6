import dataclasses
import json
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from segjax import initial_weights, network, sharding
from segjax.data import catalog
from segjax.errors import InputError
from segjax.models import functional, importers
from segjax.models.importers import weight_files
from segjax.training import assembly, state
from segjax.training.first_state import initial_state
from tests import programs, tiny
from tests.models.importers import keras_test

PREPROCESS = {"mean": (10.0, 20.5, 30.0), "std": (50.0, 60.0, 70.0), "bgr": True}
SKIP = ("head/score_pool4/*",)


def config(head: str, source: object = "", **changes) -> ml_collections.ConfigDict:
    """Two steps of a narrow FCN, from `source`."""
    return tiny.short_config(
        **{
            "model__head": {"name": head},
            "total_steps": 2,
            "ema_decay": 0.5,
            "init__from": str(source),
            **changes,
        }
    )


def assemble(made: ml_collections.ConfigDict) -> assembly.Training:
    return assembly.assemble(made, catalog.load(**made.data).spec, None, jax.devices()[:1])


def first_state(made: ml_collections.ConfigDict) -> state.TrainState:
    return initial_state(assemble(made), initial_weights.start_of(made))


def weights_of(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Path -> array of a run's parameters, as `init.from` takes them."""
    arrays = {
        name.partition("/")[2]: array
        for name, array in programs.final(workdir, "best").items()
        if name.startswith(("params/", "batch_stats/"))
    }
    assert len(arrays) >= 6
    return arrays


def loaded(ts: state.TrainState) -> dict[str, np.ndarray]:
    return tiny.by_name(functional.by_path(ts.params, ts.batch_stats))


def stored(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "config.json").read_text())["preprocess"]


def as_json(preprocess) -> dict:
    return json.loads(json.dumps(dict(preprocess)))


@pytest.fixture(scope="module")
def coarse(tmp_path_factory) -> pathlib.Path:
    """A run of FCN-32s, with images of its own kind."""
    workdir = tmp_path_factory.mktemp("runs") / "fcn32s"
    programs.train_plainly(config("fcn32s", preprocess=PREPROCESS), workdir)
    return workdir


@pytest.fixture(scope="module")
def middle(coarse, tmp_path_factory) -> pathlib.Path:
    """FCN-16s, from it."""
    workdir = tmp_path_factory.mktemp("runs") / "fcn16s"
    programs.train_plainly(config("fcn16s", coarse, init__skip=SKIP), workdir)
    return workdir


def test_each_stage_starts_where_the_one_before_ended(coarse, middle):
    skips = {"fcn16s": SKIP, "fcn8s": ("head/score_pool3/*",)}
    for source, head in ((coarse, "fcn16s"), (middle, "fcn8s")):
        before = weights_of(source)
        assert before["head/score_top/kernel"].any()  # trained
        ts = first_state(config(head, source, init__skip=skips[head]))
        assert int(ts.step) == 0
        after = loaded(ts)
        new = after.keys() - before.keys()
        assert new == {f"{skips[head][0][:-2]}/{kind}" for kind in ("kernel", "bias")}
        tiny.assert_same_bits({path: after[path] for path in before}, before)
        assert not any(after[path].any() for path in new)  # as drawn: zero
        tiny.assert_same_bits(ts.ema, {"params": ts.params, "batch_stats": ts.batch_stats})


def test_a_run_trains_on_from_what_it_loaded(coarse, middle):
    before, after = weights_of(coarse), weights_of(middle)
    for path, array in before.items():
        # Two small steps away, and not where the same seed would have drawn it.
        assert 0 < np.abs(after[path] - array).max() < 0.3 * max(1, np.abs(array).max()), path


def test_a_step_may_be_given_by_its_number(coarse):
    tiny.assert_same_bits(
        loaded(first_state(config("fcn32s", coarse, init__step="2"))),
        loaded(first_state(config("fcn32s", coarse, init__step="latest"))),
    )
    with pytest.raises(InputError, match="7"):
        first_state(config("fcn32s", coarse, init__step="7"))


def test_what_the_run_lacks_must_be_named(coarse):
    with pytest.raises(InputError) as told:
        first_state(config("fcn16s", coarse))
    assert str(told.value).startswith(
        f"{coarse} does not fit the network: 2 missing: head/score_pool4/bias, "
        "head/score_pool4/kernel. "
    )
    assert "\n" not in str(told.value)


def test_what_the_network_lacks_must_be_named(middle):
    with pytest.raises(InputError, match="2 extra: head/score_pool4/bias, head/score_pool4/kernel"):
        first_state(config("fcn32s", middle))
    ts = first_state(config("fcn32s", middle, init__skip=SKIP))
    assert loaded(ts)["head/score_top/kernel"].any()


def test_a_crf_is_put_behind_a_trained_network(coarse):
    made = config("fcn32s", coarse, init__skip=("crf/*",))
    made.model.crf = {"w1": 2.0, "vertices": 6.0}
    ts = first_state(made)
    before = weights_of(coarse)
    after = loaded(ts)
    tiny.assert_same_bits({path: after[path] for path in before}, before)
    assert {path for path in after if path not in before} == {
        f"crf/{name}" for name in ("bilateral_weights", "compatibility", "spatial_weights")
    }
    np.testing.assert_array_equal(after["crf/bilateral_weights"], 2 * np.eye(11))
    made.init.skip = ()
    with pytest.raises(InputError, match="3 missing: crf/bilateral_weights, crf/compatibility"):
        first_state(made)


def test_images_are_made_as_the_weights_know_them_and_recorded(coarse, middle):
    assert stored(coarse) == stored(middle) == as_json(PREPROCESS)
    preprocess = network.load(middle, "latest").network.model.preprocess
    assert preprocess.mean == PREPROCESS["mean"]
    assert preprocess.bgr is True


def test_the_config_may_decide_about_the_images(coarse):
    made = config("fcn32s", coarse, init__preprocess="config")
    before = as_json(made.preprocess)
    initial_weights.adopt_preprocess(made, initial_weights.start_of(made))
    assert as_json(made.preprocess) == before != as_json(PREPROCESS)
    with pytest.raises(InputError, match="init.preprocess: unknown 'file'; known: weights, config"):
        initial_weights.start_of(config("fcn32s", coarse, init__preprocess="file"))


def write(path: pathlib.Path, source: pathlib.Path, meta: dict) -> pathlib.Path:
    """A file of our own with the weights of a run."""
    weight_files.write(path, weights_of(source), meta)
    return path


def test_a_file_of_our_own_is_as_good_as_the_run(coarse, tmp_path):
    path = write(tmp_path / "w.safetensors", coarse, {"preprocess": PREPROCESS})
    made = config("fcn32s", path)
    initial_weights.adopt_preprocess(made, initial_weights.start_of(made))
    assert as_json(made.preprocess) == as_json(PREPROCESS)
    tiny.assert_same_bits(loaded(first_state(made)), weights_of(coarse))


def test_a_file_that_says_nothing_of_its_images_leaves_them_to_the_config(coarse, tmp_path):
    made = config("fcn32s", write(tmp_path / "w.safetensors", coarse, {}))
    before = as_json(made.preprocess)
    initial_weights.adopt_preprocess(made, initial_weights.start_of(made))
    assert as_json(made.preprocess) == before


def test_weights_are_looked_for_here_and_then_in_their_folder(coarse, tmp_path, monkeypatch):
    write(tmp_path / "there" / "w.safetensors", coarse, {})
    monkeypatch.setenv("SEGJAX_WEIGHTS", str(tmp_path / "there"))
    monkeypatch.chdir(tmp_path)
    start = initial_weights.start_of(config("fcn32s", "w.safetensors"))
    assert start.path == tmp_path / "there" / "w.safetensors"
    write(tmp_path / "w.safetensors", coarse, {})
    start = initial_weights.start_of(config("fcn32s", "w.safetensors"))
    assert start.path.resolve() == tmp_path / "w.safetensors"


def refusal(made: ml_collections.ConfigDict) -> str:
    with pytest.raises(InputError) as told:
        first_state(made)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_cannot_be_a_start_is_refused_with_the_reason(coarse, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "w.bin").write_bytes(b"1")
    path = write(tmp_path / "w.safetensors", coarse, {})
    arrays = weights_of(coarse)
    arrays["backbone/stem/kernel"] = np.full_like(arrays["backbone/stem/kernel"], np.nan)
    np.savez(tmp_path / "nan.npz", **arrays)
    reasons = [
        ({"source": "no_such_file"}, "config.init.from: neither 'no_such_file' nor"),
        ({"source": tmp_path / "empty"}, "is no run folder: it has no config.json"),
        ({"source": tmp_path / "w.bin"}, "weights are read from .safetensors, .npz"),
        ({"source": path, "init__origin": "keras"}, "config.init.origin: unknown 'keras'; known: "),
        ({"source": path, "init__skip": ("haed/*",)}, "config.init.skip: 'haed/*' fits no tensor"),
        ({"source": tmp_path / "nan.npz"}, "1 not finite: backbone/stem/kernel"),
    ]
    for changes, reason in reasons:
        assert reason in refusal(config("fcn32s", **changes))


def test_other_classes_are_refused_until_the_head_is_skipped(coarse):
    made = config("fcn32s", coarse)

    def state_of(made):
        training = tiny.assemble(made)  # five classes
        return initial_state(training, initial_weights.start_of(made))

    with pytest.raises(InputError, match=r"2 misshapen: head/score_top/bias \[\d+\] for \[5\]"):
        state_of(made)
    made.init.skip = ("head/*",)
    after, before = loaded(state_of(made)), weights_of(coarse)
    assert not after["head/score_top/kernel"].any()
    for path in ("backbone/stem/kernel", "backbone/deep/bias"):
        np.testing.assert_array_equal(after[path], before[path])


def test_weights_of_another_library_start_a_network_on_all_devices(tmp_path, monkeypatch):
    np.savez(tmp_path / "vgg.npz", **keras_test.make())
    made = tiny.config(
        init__from=str(tmp_path / "vgg.npz"),
        init__skip=("head/*",),
        model__backbone__batch_norm=False,
    )
    start = initial_weights.start_of(made)
    initial_weights.adopt_preprocess(made, start)
    assert as_json(made.preprocess) == {
        "mean": [123.68, 116.779, 103.939],
        "std": [1.0, 1.0, 1.0],
        "bgr": True,
    }
    training = tiny.assemble(made, devices=8)
    ts = initial_state(training, start)
    kernel = ts.params["backbone"]["stage3"]["1"]["conv"]["kernel"]
    assert kernel.sharding == sharding.replicated(training.mesh)
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, keras_test.make()["block3_conv2/kernel"])


@pytest.fixture
def conversions(monkeypatch):
    """One entry for every conversion of a file of ours."""
    made, origin = [], importers.ORIGINS["segjax"]

    def counted(arrays, shapes):
        made.append(len(shapes))
        return origin.convert(arrays, shapes)

    replaced = importers.ORIGINS | {"segjax": dataclasses.replace(origin, convert=counted)}
    monkeypatch.setattr(importers, "ORIGINS", replaced)
    return made


def test_a_start_converts_its_weights_once_for_a_network(coarse, conversions):
    made = config("fcn32s", coarse)
    training, start = assemble(made), initial_weights.start_of(made)
    start.check(training.model)
    ts = initial_state(training, start)
    assert len(conversions) == 1
    tiny.assert_same_bits(loaded(ts), weights_of(coarse))
    with pytest.raises(InputError, match="does not fit the network: 2 missing"):
        start.check(assemble(config("fcn16s", coarse)).model)  # another network
    assert len(conversions) == 2


def test_a_run_that_goes_on_needs_the_weights_no_more(coarse, conversions, tmp_path):
    source = write(tmp_path / "w.safetensors", coarse, {"preprocess": PREPROCESS})
    workdir = tmp_path / "run"
    programs.train_plainly(config("fcn32s", source), workdir)
    assert len(conversions) == 1
    source.unlink()
    programs.train_plainly(config("fcn32s", source, total_steps=3), workdir)
    assert len(conversions) == 1
    assert programs.final(workdir)["step"] == 3
    assert stored(workdir) == as_json(PREPROCESS)

"""What is wrong with a training is said before anything is written."""

import pathlib

import numpy as np
import pytest

from segjax.data import catalog
from segjax.errors import InputError
from segjax.runs import event_log, run_folder
from segjax.training import acceptance
from tests import programs, tiny

# A change of the config -> what the one line says. "{tmp}" is a folder with files for it.
FAILURES = {
    "train_split": ({"train_split": "trian"}, 'trian.*Did you mean "train"'),
    "eval.split": ({"eval__split": "vall"}, 'vall.*Did you mean "val"'),
    "loss.name": ({"loss__name": "dise"}, 'config.loss.name: .*dise.*Did you mean "dice"'),
    "data.root": ({"data": {"name": "folder", "root": "{tmp}/nowhere"}}, "nowhere"),
    "best.metric": (
        {"best__metric": "eval/mio"},
        'config.best.metric: no scalar is called .eval/mio.*Did you mean "eval/miou"',
    ),
    "stop.metric": (
        {"stop__metric": "eval/mIoU"},
        "config.stop.metric: no scalar is called .eval/mIoU.; there are .*eval/miou",
    ),
    "eval.protocol": ({"eval__protocol": "singel"}, 'protocol.*singel.*Did you mean "single"'),
    "eval.crf": ({"eval__crf__preset": "deeplab_v9"}, "config.eval.crf.*deeplab_v9"),
    "eval.metrics": ({"eval__metrics": ("boundries",)}, 'eval.metrics.*Did you mean "boundaries"'),
    "init.from": ({"init__from": "{tmp}/nowhere.npz"}, "config.init.from: neither"),
    "weights": ({"init__from": "{tmp}/small.npz"}, "small.npz does not fit the network"),
    "model": ({"model__head__upsamplign": "fixed"}, 'upsamplign.*Did you mean "upsampling"'),
    "optim.name": ({"optim__name": "sdg"}, 'config.optim.name.*Did you mean "sgd"'),
    "optim.lr": ({"optim__lr": float("nan")}, "config.optim.lr is nan"),
    "optim.parts": ({"optim__parts": (("haed/*", 1.0, 1.0),)}, "config.optim.parts.*haed"),
    "loss of a user": (
        {"loss__name": "tests.own_contracts_test:Triple"},
        "config.loss: .*Triple gives arrays of shape",
    ),
    "batch_size": ({"batch_size": 6}, "A batch of 6 images does not divide over 8 x 1 devices"),
    "mesh.space": ({"mesh__space": 3}, "config.mesh.space is 3"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Weights that fit no network of ours, though their names are right."""
    path = tmp_path_factory.mktemp("files")
    training = tiny.assemble(tiny.short_config())
    arrays = tiny.network(training).arrays()
    np.savez(path / "small.npz", **{name: array[..., :1] for name, array in arrays.items()})
    return path


def failing(name: str, folder: pathlib.Path):
    """The config of a start that fails, and what it says."""
    changes, told = FAILURES[name]

    def here(value):
        if isinstance(value, dict):
            return {key: here(one) for key, one in value.items()}
        return value.replace("{tmp}", str(folder)) if isinstance(value, str) else value

    return programs.config(**{key: here(value) for key, value in changes.items()}), told


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_start_says_why_and_leaves_no_folder(name, folder, tmp_path):
    config, told = failing(name, folder)
    with pytest.raises(InputError, match=told) as raised:
        programs.train_plainly(config, tmp_path / "run")
    assert "\n" not in str(raised.value).split("\n-----")[0]
    assert not (tmp_path / "run").exists()


def content(workdir: pathlib.Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file()
    }


def test_failed_starts_leave_a_run_as_it_was_and_the_mended_command_trains(folder, tmp_path):
    workdir = tmp_path / "run"
    programs.train_plainly(programs.config(total_steps=2), workdir)
    before = content(workdir)
    assert "config.json" in before
    assert "checkpoints/2/_CHECKPOINT_METADATA" in before
    for name in FAILURES:
        config, _ = failing(name, folder)
        config.total_steps = 3
        with pytest.raises(InputError):
            programs.train_plainly(config, workdir)
        assert content(workdir) == before, name
    programs.train_plainly(programs.config(total_steps=3), workdir)
    steps = [e["step"] for e in event_log.read(workdir) if "train/loss" in e]
    assert steps == [1, 2, 3]


def test_the_folder_of_another_config_is_refused_with_the_keys(tmp_path):
    run_folder.claim(tmp_path, programs.config())
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"another config: optim.lr \(0.05 there, 0.1 here\)"):
        programs.train_plainly(programs.config(optim__lr=0.1), tmp_path)
    with pytest.raises(InputError, match="total_steps"):
        programs.train_plainly(programs.config(total_steps=5), tmp_path)
    assert content(tmp_path) == before


def test_what_is_accepted_is_all_that_a_training_needs(tmp_path):
    config = programs.config(loss__class_weights="median_frequency", eval__limit=3)
    accepted = acceptance.accept(config, tmp_path / "run")
    spec = catalog.load(**config.data).spec
    assert accepted.training.model.spec == accepted.evaluator.metrics[0].spec == spec
    assert (accepted.train.name, accepted.val.name) == ("train", "val")
    assert accepted.start is None
    weights = accepted.meta["class_weights"]
    assert len(weights) == spec.num_classes
    assert accepted.training.loss.class_weights == tuple(weights)
    (loss,) = (m for m in accepted.evaluator.metrics if m.name == "cross_entropy")
    assert loss.class_weights == tuple(weights)
    assert accepted.meta["protocol"] == accepted.evaluator.protocol.to_json()
    assert accepted.meta["protocol"]["limit"] == 3
    assert accepted.meta["data"] == {
        "train": accepted.train.scan.fingerprint,
        "eval": accepted.val.scan.fingerprint,
    }
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metric", "changes", "known"),
    [
        ("eval/miou", {}, True),
        ("eval/ece", {}, True),
        ("train/grad_norm", {}, True),
        ("eval_ema/miou", {"ema_decay": 0.5}, True),
        ("eval_ema/miou", {"ema_decay": 0.0}, False),
        ("eval/miou_before_crf", {"eval__crf__preset": "deeplab_v1"}, True),
        ("eval/miou_before_crf", {}, False),
        ("eval/boundary_f1", {}, False),  # of whole images: not counted while a network trains
        ("train/miou", {}, False),
    ],
)
def test_the_best_checkpoint_is_chosen_by_a_scalar_that_the_run_will_have(
    metric, changes, known, tmp_path
):
    config = programs.config(best__metric=metric, **changes)
    if known:
        acceptance.accept(config, tmp_path)
        return
    with pytest.raises(InputError, match=f"config.best.metric: no scalar is called '{metric}'"):
        acceptance.accept(config, tmp_path)

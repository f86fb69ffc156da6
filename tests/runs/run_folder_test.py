import json
import pathlib
import zipfile

import pytest

from segjax.configs import crf_rnn_fcn8s, fcn8s
from segjax.configuration import keys
from segjax.errors import InputError
from segjax.runs import run_folder
from tests import programs


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """The run folder that commit 26ab59c wrote."""
    folder = tmp_path_factory.mktemp("before")
    with zipfile.ZipFile(pathlib.Path(programs.ROOT) / "tests/fixtures/run_26ab59c.zip") as archive:
        archive.extractall(folder)
    return folder / "run"


def its_config():
    """Its recipe's config, with what it had been given."""
    config = fcn8s.get_config("folder,small,smoke")
    config.data.root = "data/streets"
    config.ema_decay = 0.5
    config.augment.size = (32, 40)
    config.model.backbone.width, config.model.backbone.fc_width = 2, 4
    config.best.keep = 1
    return config


def test_a_run_folder_of_before_reads_and_goes_on(before):
    config = run_folder.read_config(before)
    keys.check(config)
    assert config.to_dict() == its_config().to_dict()
    run_folder.check(before, its_config())


def test_keys_newer_than_a_run_folder_have_their_defaults(tmp_path):
    made = fcn8s.get_config("smoke")
    stored = json.loads(made.to_json())
    del stored["loss"]
    for group, name in (("eval", "protocol"), ("eval", "crf"), ("init", "needs")):
        del stored[group][name]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert run_folder.read_config(tmp_path).to_dict() == made.to_dict()
    run_folder.check(tmp_path, made)
    made.eval.protocol = "fcn"
    with pytest.raises(InputError, match=r"eval\.protocol \(single there, fcn here\)"):
        run_folder.check(tmp_path, made)


def changed(config, **values):
    for name, value in values.items():
        *groups, last = name.split("__")
        part = config
        for group in groups:
            part = part[group]
        part[last] = value
    return config


def go_on(workdir, config) -> None:
    """A run goes on in a folder, under this config."""
    run_folder.check(workdir, config)
    run_folder.claim(workdir, config)


@pytest.mark.parametrize(
    "free",
    [
        {"data__root": "elsewhere"},
        {"every_steps__log": 3, "every_steps__eval": 7, "every_steps__checkpoint": 9},
        {"loader__threads": 1, "loader__workers": 2, "loader__cache": True},
        {"mesh__space": 2, "best__keep": 5, "eval__pictures": 0},
        {"stop__patience": 3, "stop__metric": "eval/loss", "stop__mode": "min"},
        {"model__crf__vertices": 4.5, "init__needs": "weights"},
    ],
)
def test_where_things_lie_and_what_is_looked_at_or_kept_may_change(tmp_path, free):
    run_folder.claim(tmp_path, crf_rnn_fcn8s.get_config("folder"))
    other = changed(crf_rnn_fcn8s.get_config("folder"), **free)
    go_on(tmp_path, other)
    assert run_folder.read_config(tmp_path).to_dict() == other.to_dict()


@pytest.mark.parametrize(
    ("fixed", "told"),
    [
        ({"optim__lr": 0.1}, r"optim\.lr \(0\.0001 there, 0\.1 here\)"),
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"data__name": "camvid"}, r"data\.name \(folder there, camvid here\)"),
        ({"eval__limit": 3}, r"eval\.limit \(0 there, 3 here\)"),
        ({"best__metric": "eval/loss"}, r"best\.metric"),
        ({"model__crf__iterations": 4}, r"model\.crf\.iterations \(5 there, 4 here\)"),
        ({"model__head__at_once": True, "batch_size": 1}, r"batch_size .*, model\.head\.at_once"),
        ({"total_steps": 10}, r"total_steps \(5000 there, 10 here\)"),
    ],
)
def test_all_else_may_not_and_nothing_is_written(tmp_path, fixed, told):
    run_folder.claim(tmp_path, crf_rnn_fcn8s.get_config("folder"))
    before = (tmp_path / "config.json").read_bytes()
    other = changed(crf_rnn_fcn8s.get_config("folder"), **fixed)
    with pytest.raises(InputError, match=f"holds a run of another config: {told}"):
        go_on(tmp_path, other)
    assert (tmp_path / "config.json").read_bytes() == before


def test_looking_for_differences_writes_nothing(tmp_path):
    run_folder.check(tmp_path / "new", fcn8s.get_config())
    assert list(tmp_path.iterdir()) == []


def test_a_claim_tells_the_length_that_the_run_had(tmp_path):
    config = fcn8s.get_config()
    assert run_folder.claim(tmp_path, config) is None
    config.total_steps = 1600
    assert run_folder.claim(tmp_path, config) == 800
    assert run_folder.read_config(tmp_path).total_steps == 1600


def test_what_is_no_run_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no run folder: it has no config\.json"):
        run_folder.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        run_folder.read_config(tmp_path)

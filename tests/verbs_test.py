"""The verbs as a user runs them, each in a process of its own."""

import json
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest

from segjax import network
from segjax.data import catalog, png
from segjax.errors import InputError
from segjax.runs import event_log
from tests import programs, tiny

SMOKE = "--config=configs/fcn8s.py:smoke"
TINY = ("--config.model.backbone.width=4", "--config.model.backbone.fc_width=8")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished smoke run, made by the verb itself."""
    workdir = tmp_path_factory.mktemp("verbs") / "run"
    done = programs.verb("main", SMOKE, *TINY, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def test_evaluate_gives_the_stored_number_back_to_the_last_digit(trained):
    stored = json.loads((trained / "eval-val.json").read_text())
    counts = np.load(trained / "eval-val.npz")["confusion"]
    done = programs.verb("evaluate", f"--workdir={trained}", "--step=latest")
    assert done.returncode == 0, done.stderr
    again = json.loads((trained / "eval-val.json").read_text())
    assert again["scores"] == stored["scores"]
    assert again["protocol"] == stored["protocol"]
    np.testing.assert_array_equal(np.load(trained / "eval-val.npz")["confusion"], counts)
    assert "mIoU" in done.stdout
    assert "bicyclist" in done.stdout


def write_scenes(folder: pathlib.Path, trained: pathlib.Path) -> dict[int, np.ndarray]:
    """Writes the validation scenes that a run was evaluated on as PNG files; returns the labels."""
    source = catalog.load("scenes", size=(48, 64)).splits["val"]
    limited = json.loads((trained / "eval-val.json").read_text())["protocol"]["limit"]
    folder.mkdir()
    labels = {}
    for i in np.linspace(0, 99, limited).round().astype(int).tolist():
        image, labels[i] = source[i]
        cv2.imwrite(str(folder / f"{i:03}.png"), image[..., ::-1])
    return labels


def test_predict_and_evaluate_give_the_same_labels_and_predict_takes_any_size(trained, tmp_path):
    truths = write_scenes(tmp_path / "in", trained)
    cv2.imwrite(str(tmp_path / "in" / "strip.png"), np.full((1, 91, 3), 90, np.uint8))
    done = programs.verb(
        "predict", f"--workdir={trained}", f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}", "--step=latest",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = np.zeros((11, 11), np.int64)
    for i, truth in truths.items():
        predicted = png.decode_mask((tmp_path / "out" / f"{i:03}.png").read_bytes(), "")
        valid = truth != 255
        np.add.at(counts, (truth[valid], predicted[valid]), 1)
    np.testing.assert_array_equal(counts, np.load(trained / "eval-val.npz")["confusion"])
    overlay = cv2.imread(str(tmp_path / "out" / "000_overlay.png"))
    assert overlay.shape[0] >= 48
    assert overlay.shape[1] >= 64
    label = png.decode_mask((tmp_path / "out" / "strip.png").read_bytes(), "")
    assert label.shape == (1, 91)
    assert label.max() < 11


VIEWS = "single, scales=(0.5, 1.0), flip=True"


def test_several_views_are_evaluated_and_predicted_alike_and_kept_apart(trained, tmp_path):
    before = (trained / "eval-val.json").read_bytes()
    done = programs.forked(
        "evaluate", f"--workdir={trained}", "--step=latest", f"--protocol={VIEWS}"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "programs compiled: " in done.stdout
    assert (trained / "eval-val.json").read_bytes() == before
    (path,) = trained.glob("eval-val-single-*.json")
    fields = json.loads(path.read_text())
    assert fields["protocol"]["views"]["scales"] == [0.5, 1.0]
    assert fields["data"]
    assert fields["checkpoint"]
    assert (trained / "pictures" / f"{path.stem}-worst.png").exists()

    write_scenes(tmp_path / "in", trained)
    done = programs.forked(
        "predict", f"--workdir={trained}", f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}", "--step=latest", f"--protocol={VIEWS}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(path.with_name(f"{path.stem}-labels.zip")) as maps:
        assert len(maps.namelist()) == fields["examples"]
        for name in maps.namelist():
            index = int(name.removeprefix("scene-").removesuffix(".png"))
            kept = png.decode_mask(maps.read(name), name)
            again = png.decode_mask((tmp_path / "out" / f"{index:03}.png").read_bytes(), "")
            np.testing.assert_array_equal(kept, again)


def test_bad_input_is_one_line_and_status_one(trained, tmp_path):
    broken = tmp_path / "broken.jpg"
    whole = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    broken.write_bytes(whole[: len(whole) // 2])
    elsewhere = f"--workdir={tmp_path / 'run'}"
    cases = {
        "unknown 'smoek'": ("main", "--config=configs/fcn8s.py:smoek", elsewhere),
        "unknown config key 'optim.lrr'. Did you mean \"lr\"": (
            "main", SMOKE, "--config.optim.lrr=1", elsewhere,
        ),
        "broken.jpg": ("predict", f"--workdir={trained}", f"--input={broken}"),
        "no checkpoint '77'": ("evaluate", f"--workdir={trained}", "--step=77"),
        "known: labels, ids, overlay, crf, uncertainty, heatmaps. Did you mean \"labels\"": (
            "predict", f"--workdir={trained}", f"--input={trained}", "--save=label",
        ),
        "--save=heatmaps needs a classifier": (
            "predict", f"--workdir={trained}", "--save=heatmaps",
            f"--input={trained / 'pictures' / 'curves.png'}",
        ),
        "--protocol and --crf apply only to labels of segmentation networks": (
            "predict", "--config=configs/slic.py", "--crf=deeplab_v1",
        ),
        "--config.predict.output: it is a flag now: --save=heatmaps": (
            "predict", "--config=configs/slic.py", "--config.predict.output=heatmaps",
        ),
    }  # fmt: skip
    for expected, (verb, *flags) in cases.items():
        told = programs.line(programs.forked(verb, *flags, SEGJAX_DATA=str(tmp_path / "nowhere")))
        assert expected in told


def test_the_checkpoint_of_another_model_is_refused(trained, tmp_path):
    config = json.loads((trained / "config.json").read_text())
    config["model"]["backbone"]["fc_width"] = 12
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    with pytest.raises(InputError, match="another model.*misshapen: .*norm6/mean"):
        network.load(tmp_path, "latest")


@pytest.mark.slow
def test_a_run_killed_three_times_ends_bit_for_bit_like_one_that_was_not(tmp_path):
    """kill -9 at moments that differ from run to run; checkpoints every step."""
    flags = [SMOKE, *TINY, "--config.total_steps=40", "--config.every_steps.eval=20",
             "--config.every_steps.checkpoint=1", "--config.best.keep=3"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert programs.verb("main", *flags, f"--workdir={whole}").returncode == 0
    rng = np.random.default_rng(time.time_ns())
    command = [sys.executable, "-m", "segjax.main", *flags, f"--workdir={killed}"]
    for kill in range(3):
        process = subprocess.Popen(
            command, cwd=programs.ROOT, env=programs.environment(), stderr=subprocess.DEVNULL
        )
        wait_for_step(killed, int(rng.integers(2, 12)) + 12 * kill, process)
        time.sleep(float(rng.uniform(0, 0.2)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert programs.verb("main", *flags, f"--workdir={killed}").returncode == 0
    tiny.assert_same_bits(programs.final(killed), programs.final(whole))
    steps = [e["step"] for e in event_log.read(killed) if "train/loss" in e]
    assert steps == list(range(1, 41))


def wait_for_step(workdir: pathlib.Path, step: int, process: subprocess.Popen) -> None:
    """Waits until the log holds a step."""
    while process.poll() is None:
        events = event_log.read(workdir) if workdir.exists() else []
        if events and events[-1]["step"] >= step:
            return
        time.sleep(0.02)
    raise AssertionError("the run ended before it could be killed")

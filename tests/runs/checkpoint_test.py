import errno
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import sharding as shardings
from segjax.errors import InputError
from segjax.runs import checkpoint
from tests import programs

MESH_SIZES = (1, 2, 8)


def tree(value: float = 1.0, width: int = 16) -> dict:
    return {
        "kernel": jnp.full((3, width), float(value)) * jnp.arange(width),
        "step": jnp.int32(value),
    }


def like(arrays: dict, devices: int = 1) -> dict:
    sharding = shardings.replicated(shardings.make_mesh(1, jax.devices()[:devices]))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), arrays)


def opened(folder: pathlib.Path, **options) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(
        folder, **{"metric": "eval/miou", "mode": "max", "keep": 2, **options}
    )


def save_all(folder: pathlib.Path, scores: list[float | None], **options) -> None:
    checkpoints = opened(folder, **options)
    for step, score in enumerate(scores, start=1):
        checkpoints.save(tree(step), step, meta={"note": f"step {step}"})
        if score is not None:
            checkpoints.record(step, {"eval/miou": score})
    checkpoints.close()


def damage(folder: pathlib.Path, step: int) -> None:
    """Flips bytes in the middle of every array file of a step."""
    for path in (folder / str(step) / "state").rglob("d/*"):
        data = bytearray(path.read_bytes())
        for i in range(len(data) // 2, len(data) // 2 + 8):
            data[i] ^= 0xFF
        path.write_bytes(bytes(data))


def test_a_run_without_checkpoints_restores_nothing(tmp_path):
    checkpoints = opened(tmp_path / "c")
    assert checkpoints.restore(like(tree())) is None
    checkpoints.close()


@pytest.mark.parametrize("devices", MESH_SIZES)
def test_the_latest_state_comes_back_on_any_number_of_devices(tmp_path, devices):
    save_all(tmp_path / "c", [0.1, 0.2, 0.3])
    checkpoints = opened(tmp_path / "c")
    got, meta = checkpoints.restore(like(tree(), devices))
    checkpoints.close()
    np.testing.assert_array_equal(got["kernel"], tree(3)["kernel"])
    assert len(got["kernel"].sharding.device_set) == devices
    assert meta["note"] == "step 3"


def test_the_best_is_kept_beside_the_latest_also_after_a_restart(tmp_path):
    save_all(tmp_path / "c", [0.9, 0.2, 0.1, None])
    checkpoints = opened(tmp_path / "c")
    checkpoints.save(tree(5), 5, meta={})
    checkpoints.record(5, {"eval/miou": 0.3})
    checkpoints.close()
    kept = sorted(int(p.name) for p in (tmp_path / "c").iterdir() if p.name.isdigit())
    assert kept == [1, 4, 5]
    checkpoints = opened(tmp_path / "c", read_only=True)
    got, _ = checkpoints.restore(like(tree()), "best")
    assert int(got["step"]) == 1
    checkpoints.close()


def test_the_smallest_is_best_where_the_config_says_min_and_nan_never_is(tmp_path):
    save_all(tmp_path / "c", [0.5, 0.1, float("nan"), 0.3], mode="min", keep=1)
    checkpoints = opened(tmp_path / "c", mode="min", keep=1, read_only=True)
    got, _ = checkpoints.restore(like(tree()), "best")
    checkpoints.close()
    assert int(got["step"]) == 2


def test_damaged_checkpoints_are_walked_back_over(tmp_path):
    save_all(tmp_path / "c", [0.3, 0.2, 0.1], keep=3)
    damage(tmp_path / "c", 3)
    for file in (tmp_path / "c" / "2" / "state").iterdir():  # emptied
        if file.is_file():
            file.unlink()
    checkpoints = opened(tmp_path / "c", keep=3)
    got, _ = checkpoints.restore(like(tree()))
    assert int(got["step"]) == 1
    checkpoints.close()


def test_only_the_step_asked_for_will_do(tmp_path):
    save_all(tmp_path / "c", [0.3, 0.2])
    damage(tmp_path / "c", 2)
    checkpoints = opened(tmp_path / "c")
    with pytest.raises(InputError, match="every checkpoint is damaged"):
        checkpoints.restore(like(tree()), "2")
    checkpoints.close()
    assert (tmp_path / "c" / "2").is_dir()


def test_a_damaged_checkpoint_is_set_aside_and_its_step_saved_again(tmp_path):
    save_all(tmp_path / "c", [0.1, 0.2, 0.9])
    damage(tmp_path / "c", 3)
    watching = opened(tmp_path / "c", read_only=True)
    assert int(watching.restore(like(tree()))[0]["step"]) == 2
    watching.close()
    assert (tmp_path / "c" / "3").is_dir()  # who only looks changes nothing
    checkpoints = opened(tmp_path / "c")
    assert int(checkpoints.restore(like(tree()))[0]["step"]) == 2
    assert (tmp_path / "c" / "damaged-3").is_dir()
    assert checkpoint.steps_in(tmp_path / "c") == [2]
    checkpoints.save(tree(3), 3, meta={})
    checkpoints.record(3, {"eval/miou": 0.15})
    checkpoints.close()
    checkpoints = opened(tmp_path / "c")
    assert int(checkpoints.restore(like(tree()))[0]["step"]) == 3
    assert int(checkpoints.restore(like(tree()), "best")[0]["step"]) == 2  # 0.9 is forgotten
    checkpoints.close()


def test_checkpoints_that_changed_places_are_noticed(tmp_path):
    save_all(tmp_path / "c", [0.1, 0.2])
    (tmp_path / "c" / "1").rename(tmp_path / "c" / "one")
    (tmp_path / "c" / "2").rename(tmp_path / "c" / "1")
    (tmp_path / "c" / "one").rename(tmp_path / "c" / "2")
    checkpoints = opened(tmp_path / "c", read_only=True)
    with pytest.raises(InputError, match=r"every checkpoint is damaged: \[1, 2\]"):
        checkpoints.restore(like(tree()))
    checkpoints.close()


def test_damaged_scores_are_no_scores(tmp_path):
    save_all(tmp_path / "c", [0.1, 0.2])
    (tmp_path / "c" / "2" / "metrics" / "metrics").write_text('{"eval/miou": 0.')
    checkpoints = opened(tmp_path / "c")
    assert checkpoints.metrics(2) is None
    assert checkpoints.metrics(1) == {"eval/miou": 0.1}
    assert int(checkpoints.restore(like(tree()), "best")[0]["step"]) == 1
    checkpoints.close()


def test_a_flipped_byte_is_noticed_by_the_fingerprint():
    arrays = tree(2.0)
    changed = dict(arrays, kernel=arrays["kernel"].at[1, 3].add(1e-6))
    assert int(checkpoint.fingerprint(arrays)) != int(checkpoint.fingerprint(changed))
    swapped = {"a": arrays["kernel"], "b": arrays["kernel"] + 1}
    back = {"a": arrays["kernel"] + 1, "b": arrays["kernel"]}
    assert int(checkpoint.fingerprint(swapped)) != int(checkpoint.fingerprint(back))


def test_a_checkpoint_of_another_model_is_refused_with_the_tensors_named(tmp_path):
    save_all(tmp_path / "c", [0.1])
    checkpoints = opened(tmp_path / "c")
    wanted = like(tree(width=8)) | {"bias": like(tree())["step"]}
    with pytest.raises(InputError, match="another model.*missing: bias.*misshapen: kernel") as told:
        checkpoints.restore(wanted)
    assert "float32[3, 16] for float32[3, 8]" in str(told.value)
    half = {
        "kernel": jax.ShapeDtypeStruct((3, 16), jnp.bfloat16, sharding=wanted["bias"].sharding),
        "step": wanted["bias"],
    }
    with pytest.raises(InputError, match="misshapen: kernel"):  # orbax would cast silently
        checkpoints.restore(half)
    checkpoints.close()


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    save_all(tmp_path / "c", [0.1, 0.2])
    checkpoints = opened(tmp_path / "c", read_only=True)
    with pytest.raises(InputError, match="no checkpoint '7'; steps: 1, 2"):
        checkpoints.restore(like(tree()), "7")
    with pytest.raises(InputError, match='"best", "latest" or a number'):
        checkpoints.restore(like(tree()), "newest")
    checkpoints.close()


FULL = "the disk is full, a checkpoint was not saved; last whole one: step 1. Make room and start"
REFUSED = "a checkpoint was not saved: .*ermission.*; last whole one: step 1. Mend that and start"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"), FULL),
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (PermissionError(errno.EACCES, "Permission denied"), REFUSED),
        (ValueError("PERMISSION_DENIED: Error writing local file"), REFUSED.replace("erm", "ERM")),
    ],
)
def test_a_disk_that_refuses_is_one_clear_error(tmp_path, monkeypatch, error, told):
    with opened(tmp_path / "c") as checkpoints:
        checkpoints.save(tree(1), 1, meta={})
        checkpoints.wait()

        def refuse(*_, **__):
            raise error

        monkeypatch.setattr(checkpoints._manager, "save", refuse)
        with pytest.raises(InputError, match=re.compile(told, re.IGNORECASE)):
            checkpoints.save(tree(2), 2, meta={})
        monkeypatch.undo()


def test_other_errors_of_a_save_are_not_taken_for_the_disks(tmp_path, monkeypatch):
    with opened(tmp_path / "c") as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoints.save(tree(2), 2, meta={})
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("first", "told"), [(InputError("the first"), "the first"), (None, "the second")]
)
def test_the_first_error_is_the_one_that_is_told(tmp_path, monkeypatch, first, told):
    checkpoints = opened(tmp_path / "c")
    close = checkpoints.close

    def fail():
        close()
        raise InputError("the second")

    def use():
        with checkpoints:
            if first is not None:
                raise first

    monkeypatch.setattr(checkpoints, "close", fail)
    with pytest.raises(InputError, match=told):
        use()


def test_threads_of_a_save_that_failed_are_not_heard_and_others_are(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    checkpoint._hush_tensorstore.__wrapped__()  # else once in a process
    for text in ("Event loop is closed", "another"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
    assert [str(one.exc_value) for one in told] == ["another"]


def test_checkpoint_files_are_only_known_to_one_module():
    importers = [
        path.name
        for path in (programs.ROOT / "segjax").rglob("*.py")
        if "import orbax" in path.read_text() or "from orbax" in path.read_text()
    ]
    assert importers == [checkpoint.__name__.split(".")[-1] + ".py"]

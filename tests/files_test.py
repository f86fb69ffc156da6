"""Files that are whole or not there."""

import contextlib
import json
import os
import pathlib
import resource
import stat
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from segjax import files
from segjax.errors import InputError
from segjax.models.importers import weight_files
from segjax.pictures import layout

NOISE = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)  # compresses to no less


def write_zip(path: pathlib.Path) -> None:
    """Two files of 30 kB each."""
    with files.ZipWriter(path) as archive:
        archive.add("a.png", NOISE.tobytes())
        archive.add("b.png", NOISE.tobytes())


def write_weights(path: pathlib.Path) -> None:
    """A safetensors file."""
    weight_files.write(path.with_suffix(".safetensors"), {"a": NOISE}, {})


KINDS: dict[str, Callable[[pathlib.Path], None]] = {
    "bytes": lambda path: files.write(path, NOISE.tobytes()),
    "text": lambda path: files.write_text(path, "text\n" * 9999),
    "json": lambda path: files.write_json(path, NOISE.tolist()),
    "npz": lambda path: files.write_npz(path, noise=NOISE),
    "png": lambda path: layout.write_png(path, NOISE),
    "zip": write_zip,
    "safetensors": write_weights,
}


@contextlib.contextmanager
def small_disk() -> Iterator[None]:
    """The system refuses the rest of a file after 1000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_that_the_disk_refuses_midway_leaves_nothing_and_names_the_file(kind, tmp_path):
    with (
        small_disk(),
        pytest.raises(InputError, match=r"deep/file\S*: cannot be written: File too"),
    ):
        KINDS[kind](tmp_path / "deep" / "file")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_ends_before_its_last_act_leaves_the_file_that_was_there(
    kind, error, tmp_path, monkeypatch
):
    KINDS[kind](tmp_path / "file")
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"before")

    def fail(*_):
        assert len(list(tmp_path.iterdir())) == 2  # the new file lies beside the old one
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        KINDS[kind](tmp_path / "file")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"before"


def test_an_archive_appears_when_it_is_closed(tmp_path):
    path = tmp_path / "a.zip"
    with files.ZipWriter(path) as archive:
        archive.add("x.png", b"x")
        assert not path.exists()
    with zipfile.ZipFile(path) as made:
        assert made.read("x.png") == b"x"
        assert made.testzip() is None
        assert made.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)  # the same bytes at any time


def test_an_error_between_two_files_of_an_archive_is_raised_as_it_is_and_leaves_nothing(tmp_path):
    def write_half() -> None:
        with files.ZipWriter(tmp_path / "a.zip") as archive:
            archive.add("x.png", b"x")
            raise FileNotFoundError("an image, not the archive")

    with pytest.raises(FileNotFoundError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read_back_and_may_be_read_by_others(tmp_path):
    files.write_json(tmp_path / "a.json", {"name": "Straße", "value": [1, None]})
    text = (tmp_path / "a.json").read_text(encoding="ascii")
    assert text == '{\n  "name": "Stra\\u00dfe",\n  "value": [\n    1,\n    null\n  ]\n}\n'
    assert json.loads(text)["name"] == "Straße"
    files.write_text(tmp_path / "a.txt", "Straße")
    assert (tmp_path / "a.txt").read_bytes() == "Straße".encode()
    files.write_npz(tmp_path / "a.npz", noise=NOISE, step=3)
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["noise"], NOISE)
        assert arrays["step"] == 3
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_in_the_place_of_a_folder_is_one_line(kind, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/deeper\S*: cannot be written: File exists"):
        KINDS[kind](tmp_path / "file" / "deeper")


def test_files_that_are_read_or_there_or_of_two_results_are_not_free(tmp_path):
    read, there, new = (tmp_path / name for name in ("read", "there", "new"))
    read.touch()
    there.touch()
    (tmp_path / "link").symlink_to(read)
    os.link(read, tmp_path / "hard")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    files.check_free({"a": [new]}, inputs=[read])
    for path in (read, tmp_path / "link", tmp_path / "hard"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match=f"{path} is read by this command"):
                files.check_free({"a": [new, path]}, inputs=[read], overwrite=overwrite)
    with pytest.raises(InputError, match=r"there and 1 more: there already; .*--overwrite\.$"):
        files.check_free({"a": [new, there], "b": [tmp_path / "broken"]}, inputs=[read])
    files.check_free({"a": [there, tmp_path / "broken"]}, inputs=[read], overwrite=True)
    with pytest.raises(InputError, match="new would be written twice, for a and for b"):
        files.check_free({"a": [new], "b": [new]}, overwrite=True)

"""Programs that are kept between starts."""

import pathlib
import subprocess
import sys
import zlib

import pytest

from segjax import files
from segjax.compilers import cache
from tests import programs

_PROGRAM = """
import sys
import jax, jax.numpy as jnp
from segjax.compilers import cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
cache.keep()
print(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.eye(3)).sum())
"""


def start(folder: pathlib.Path, **more: str) -> subprocess.CompletedProcess:
    """A process that compiles a program and keeps it."""
    environment = programs.environment(SEGJAX_CACHE=str(folder))
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=programs.ROOT,
        env=environment | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def entries(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*-cache")}


def test_a_second_start_takes_the_programs_of_the_first(tmp_path):
    start(tmp_path)
    kept = entries(tmp_path)
    assert kept
    again = start(tmp_path, JAX_EXPLAIN_CACHE_MISSES="1", JAX_LOGGING_LEVEL="INFO")
    assert "PERSISTENT COMPILATION CACHE MISS" not in again.stderr
    assert entries(tmp_path) == kept


def test_a_program_that_was_left_unfinished_is_made_again(tmp_path):
    start(tmp_path)
    kept = entries(tmp_path)
    for path in tmp_path.rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:-20])
    assert "was left unfinished and is made again" in start(tmp_path).stderr
    assert entries(tmp_path).keys() == kept.keys()
    assert all(zlib.decompress(entry) for entry in entries(tmp_path).values())
    assert "unfinished" not in start(tmp_path).stderr


def test_the_place_that_jax_was_told_goes_first(tmp_path):
    named = tmp_path / "named"
    start(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(named))
    assert entries(named)
    assert not entries(tmp_path / "ours")
    start(tmp_path / "off", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not entries(tmp_path / "off")


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path):
    (tmp_path / "file").write_text("no folder")
    start(tmp_path / "file")


def test_entries_that_were_read_once_are_not_read_again(tmp_path, monkeypatch):
    (tmp_path / "a-cache").write_bytes(zlib.compress(b"a" * 1000))
    (tmp_path / "b-cache").write_bytes(b"\x28\xb5\x2f\xfd zstandard")
    read = []
    monkeypatch.setattr(cache, "_whole", lambda entry: read.append(entry) or True)
    cache._remove_unfinished(tmp_path)
    assert len(read) == 2
    (tmp_path / "c-cache").write_bytes(zlib.compress(b"c"))
    cache._remove_unfinished(tmp_path)
    assert len(read) == 3


@pytest.mark.parametrize(
    ("entry", "whole"),
    [
        (zlib.compress(b"x" * 5000), True),
        (zlib.compress(b"x" * 5000)[:-1], False),
        (b"", False),
        (b"\x78\x9c nonsense", False),
        (b"\x28\xb5\x2f\xfd zstandard", True),
    ],
)
def test_a_truncated_entry_is_known(entry, whole):
    assert cache._whole(entry) is whole


def test_programs_of_one_processor_have_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path))
    assert cache.folder().parent == tmp_path / "programs"
    assert cache.folder() == cache.folder()
    assert files.cache_folder() == tmp_path

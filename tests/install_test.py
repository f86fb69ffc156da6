"""The wheel, and what runs from it in an empty folder where a user has a folder `configs`."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import segjax
from segjax import __main__ as verbs
from segjax.configuration import loading
from tests import programs

ROOT = pathlib.Path(programs.ROOT)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The unpacked wheel, as pip leaves it on the path."""
    for backend in ("setuptools", "wheel"):
        if not importlib.util.find_spec(backend):
            pytest.skip(f"{backend} builds the wheel, and is not there")
    source, place = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
    for folder in ("segjax", "configs"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "MANIFEST.in", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.fixture
def folder(tmp_path):
    """A user's folder, with one called `configs` that nobody may import."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('a user's own')")
    return tmp_path


def run(installed: pathlib.Path, folder: pathlib.Path, *command: str):
    """What `segjax ...` prints in a folder, as its console script starts it."""
    start = "import sys; from segjax.__main__ import main; sys.path[:1] = []; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *command],
        cwd=folder,
        env=programs.environment(PYTHONPATH=os.fspath(installed)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_recipes_the_types_and_the_console_script(installed):
    shipped = {path.name for path in (installed / "segjax" / "configs").iterdir()}
    assert {f"{name}.py" for name in loading.shipped()} < shipped
    assert {path.name for path in loading.FOLDER.glob("*.json")} < shipped
    assert (installed / "segjax" / "configs" / "__init__.py").read_text() == ""
    assert (installed / "segjax" / "py.typed").exists()
    assert not (installed / "configs").exists()
    (info,) = installed.glob("*.dist-info")
    assert f"Version: {segjax.__version__}\n" in (info / "METADATA").read_text()
    assert "segjax = segjax.__main__:main" in (info / "entry_points.txt").read_text()


def test_the_smoke_recipe_runs_from_the_wheel_in_an_empty_folder(installed, folder):
    done = run(installed, folder, "train", "--config=fcn8s:smoke")
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stderr
    assert (folder / "runs" / "fcn8s-smoke" / "eval-val.json").exists()


def test_a_users_recipe_and_its_modules_are_found_where_the_command_is_run(installed, folder):
    (folder / "beside.py").write_text("STEPS = -2")
    (folder / "mine.py").write_text(
        "import beside\n"
        "from segjax.configs import fcn8s\n"
        "def get_config(words=''):\n"
        "    config = fcn8s.get_config(words)\n"
        "    config.total_steps = beside.STEPS\n"
        "    return config\n"
    )
    done = run(installed, folder, "train", "--config=mine.py:smoke")
    assert done.returncode == 1
    assert "config.total_steps is -2; it must be" in done.stderr
    done = run(installed, folder, "train", "--config=configs/fcn8s.py")
    assert "The shipped recipe is --config=fcn8s." in done.stderr


def test_segjax_alone_lists_the_verbs_and_a_wrong_one_is_told_the_near_miss(installed, folder):
    done = run(installed, folder)
    assert done.returncode == 0
    for verb in verbs.VERBS:
        assert f"\n  {verb}" in done.stdout
    done = run(installed, folder, "trian")
    assert done.returncode == 1
    assert "segjax: there is no verb 'trian'. Did you mean \"train\"?" in done.stderr
    assert run(installed, folder, "--version").stdout == f"segjax {segjax.__version__}\n"


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_verb_is_a_module_that_runs(verb):
    module = importlib.import_module(f"segjax.{verbs.VERBS[verb][0]}")
    assert callable(module.VERB.run)

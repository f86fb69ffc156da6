import importlib
import os
import pathlib
import re
import sys

import pytest

from segjax.configs import fcn8s
from segjax.configuration import loading
from segjax.errors import InputError
from tests import programs

OWN = """
from segjax.configs import fcn8s
import beside

def get_config(words: str = ""):
    config = fcn8s.get_config(words)
    config.total_steps = beside.STEPS
    return config
"""


def test_a_bare_name_is_the_shipped_recipe_and_a_path_is_the_file():
    expected = fcn8s.get_config("smoke").to_json()
    assert loading.load("fcn8s:smoke").to_json() == expected
    path = pathlib.Path(programs.ROOT) / "configs" / "fcn8s.py"
    assert loading.load(f"{path}:smoke").to_json() == expected
    assert loading.module(str(path)) is fcn8s


def test_recipes_never_import_the_folder_of_the_checkout_by_its_name():
    for path in loading.FOLDER.glob("*.py"):
        assert not re.search(r"^(from|import) configs\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("fcn9s", r"no shipped recipe is called 'fcn9s'.*Did you mean \"fcn8s\""),
        ("default", r"no shipped recipe is called 'default'"),
        (
            "nowhere/fcn8s.py",
            r"nowhere/fcn8s\.py does not exist\. The shipped recipe is --config=fcn8s\.",
        ),
        ("nowhere/mine.py:smoke", r"^nowhere/mine\.py does not exist\.$"),
        ("fcn8s:camvit", r"unknown 'camvit'.*Did you mean \"camvid\""),
    ],
)
def test_what_is_not_there_is_one_line_with_what_may_be_meant(value, told):
    with pytest.raises(InputError, match=told):
        loading.load(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "has no function get_config"),
        ("def get_config(): return {}", "did not return a ConfigDict"),
        ("def get_config():\n    return 1 / 0", r"ZeroDivisionError: .*mine\.py, line 2"),
        ("from configs import fcn8s", "imported with `from segjax.configs import ...`"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def get_config(:", "SyntaxError"),
    ],
)
def test_a_users_recipe_that_fails_says_where(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(programs.ROOT)])
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    importlib.invalidate_caches()
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=told):
        loading.load("mine.py")


def test_a_users_recipe_lies_anywhere_and_builds_on_ours(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('a folder of the user')")
    (tmp_path / "configs" / "mine.py").write_text(OWN)
    (tmp_path / "beside.py").write_text("STEPS = 0")  # refused, so that nothing is trained
    done = programs.verb(
        "main", "--config=configs/mine.py:smoke", cwd=tmp_path, PYTHONPATH=os.fspath(programs.ROOT)
    )
    assert "config.total_steps is 0; it must be a whole number from 1 to 2000000000" in done.stderr
    assert done.returncode == 1
    assert not (tmp_path / "runs").exists()

from pathlib import Path

import pytest

from segjax import prepare
from segjax.errors import InputError
from tests import programs


@pytest.mark.parametrize("words", [[], ["shwo"], ["show", "check"]])
def test_an_unknown_action_names_the_known_ones(words: list[str]):
    with pytest.raises(InputError, match="one of show, check"):
        prepare.main(["prepare.py", *words])


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["show"], 0, "Written: "), (["check"], 0, "no problem"), ([], 1, "one of show, check")],
)
def test_the_command_shows_and_checks_the_data_set_of_a_recipe(
    tmp_path: Path, words: list[str], status: int, said: str
):
    flags = ("--config=configs/fcn8s.py:smoke", f"--output={tmp_path}")
    done = programs.forked("prepare", *words, *flags, SEGJAX_CACHE=str(tmp_path / "cache"))
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert (tmp_path / "scenes-train-sheet.png").exists() == (words == ["show"])

"""Verbs: imported together, their manuals, the flags they share."""

import pytest

from segjax import cli
from tests import programs

VERBS = ("main", "compare", "evaluate", "predict", "prepare", "weights")


def test_all_verbs_are_imported_together_and_define_no_flag():
    script = (
        "import importlib\n"
        "from absl import flags\n"
        "import absl.app, grain, ml_collections.config_flags, orbax.checkpoint\n"
        "before = set(flags.FLAGS)\n"
        f"for name in {[*VERBS, 'study']}: importlib.import_module('segjax.' + name)\n"
        "print(sorted(set(flags.FLAGS) - before))\n"
    )
    done = programs.script(script)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("compare", "data_root output overwrite split"),
        ("main", "config coordinator distributed process_id processes replay workdir"),
        (
            "evaluate",
            "coordinator crf data_root distributed process_id processes protocol split statistics "
            "step superpixels weights workdir",
        ),
        ("predict", "config crf data_root input output overwrite protocol save step workdir"),
        ("prepare", "config data_root output overwrite split"),
        ("weights", "output overwrite step weights workdir"),
    ],
)
def test_help_is_the_docstring_and_the_flags_of_the_verb(verb, flags):
    done = programs.forked(verb, "--help")
    assert done.returncode == 0, done.stderr
    manual, shown = done.stdout.split("\nflags:\n")
    assert f"python -m segjax.{verb} " in manual
    names = [
        line.split(":")[0].strip().replace("[no]", "")
        for line in shown.splitlines()
        if line.startswith("  --")
    ]
    assert names == [f"--{name}" for name in flags.split()]


def test_words_a_verb_does_not_take_and_unknown_flags_are_one_line():
    told = programs.line(programs.forked("prepare", "show", "more"))
    assert "Unknown words on the command line: more." in told
    told = programs.line(programs.forked("prepare", "show", "--outptu=x"))
    assert "Unknown command line flag 'outptu'. Did you mean: output" in told


def test_only_flags_that_verbs_share_get_another_default():
    with pytest.raises(ValueError, match="replay is no flag that verbs share; shared: workdir, "):
        cli.define(replay=("", ""))


def test_an_error_of_ours_is_a_traceback_and_the_end_whatever_threads_still_wait():
    """A save that failed leaves threads that wait for twenty minutes."""
    script = (
        "import threading\n"
        "from segjax import cli\n"
        "def main(argv):\n"
        "    threading.Thread(target=threading.Event().wait).start()\n"
        "    return {}[0]\n"
        "cli.Verb(lambda: None, main).run()\n"
    )
    done = programs.script(script)
    assert done.returncode == 1
    assert "KeyError: 0" in done.stderr

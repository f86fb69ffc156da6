"""README: its length, and the two commands that it promises."""

from tests import pages, programs


def test_readme_is_short_and_its_two_commands_come_before_the_first_table():
    lines = pages.read("README.md").splitlines()
    assert len(lines) <= 120
    first_table = next(i for i, line in enumerate(lines) if line.startswith("|"))
    assert first_table <= 40
    head = "\n".join(lines[:first_table])
    assert "python -m segjax.main --config=configs/fcn8s.py" in head
    assert "python -m pytest" in head
    assert "![" in head


def test_ci_runs_the_test_command_of_readme():
    _, test = (block.code.strip() for block in pages.blocks("README.md", "bash"))
    ci = (programs.ROOT / ".ci" / "run").read_text()
    install, run = test.split(" && ")[2:]
    assert install in ci
    assert run in ci

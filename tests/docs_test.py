"""What README and the pages of docs/ promise: code runs, commands parse, links lead somewhere."""

import ast
import importlib.util
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from segjax import __main__ as verbs
from segjax import study
from segjax.configuration import loading
from tests import pages, programs
from tests.install_test import installed, run  # noqa: F401 (a fixture)

DOCS = programs.ROOT / "docs"
OWN = DOCS / "examples" / "own.py"


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """An empty folder where commands run, with a photograph; modules in it can be imported."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "photo.jpg"), rng.integers(0, 256, (40, 56, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in map(str, tmp_path.glob("*.py")):
            del sys.modules[name]


def snippets(page: str) -> list[str]:
    """The code of a page that is run: no files, no blocks that say why they are not run."""
    found = [block for block in pages.blocks(page, "python") if not block.file]
    return [block.code for block in found if not block.note.startswith("not run: ")]


GIVEN = {
    "docs/classical.md": {"image": np.zeros((24, 32, 3), np.uint8)},
    "docs/crf.md": {
        "image": np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8),
        "logits": np.random.default_rng(1).normal(size=(12, 16, 4)).astype(np.float32),
    },
}
"""Page -> names that its code takes as given."""


@pytest.mark.parametrize("page", [page for page in pages.PAGES if snippets(page)])
def test_the_code_of_a_page_runs_block_after_block(page, beside):
    names = dict(GIVEN.get(page, {}))
    for code in snippets(page):
        exec(compile(code, page, "exec"), names)
    if page == "docs/crf.md":
        assert names["logits"].shape == (12, 16, 4)
        assert np.isfinite(names["logits"]).all()
        assert names["lacking"] == 0
    if page == "docs/python.md":
        assert len(names["losses"]) == 4
        assert names["labels"].shape == names["regions"].shape == (40, 56)
        assert names["scores"][0].shape == (40, 56, 11)


@pytest.mark.parametrize("page", [page for page in pages.PAGES if pages.blocks(page, "python")])
def test_code_that_is_not_run_is_python_and_says_why(page):
    for block in pages.blocks(page, "python"):
        ast.parse(block.code)
        assert block.note == "" or re.match(r"not run: \w", block.note)


def test_the_parts_of_extending_are_trained_together(beside):
    for name, code in pages.files("docs/extending.md").items():
        (beside / name).write_text(code)
    config = loading.load("my_recipe.py:smoke")
    config.total_steps = 2
    programs.train_plainly(config, beside / "run")
    scores = json.loads((beside / "run" / "eval-val.json").read_text())["scores"]
    assert 0 < scores["top_two"] <= 1
    used = {str(value) for value in _leaves(config.to_dict())}
    doors = "data losses metrics heads backbones optimisers schedules augment"
    for module in doors.split():
        assert any(f"my_{module}:" in value for value in used)


def _leaves(tree) -> Iterator:
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, dict | tuple | list):
            yield from _leaves(value)
        else:
            yield value


def test_the_method_of_extending_runs_over_a_data_set(beside):
    for name in ("my_methods.py", "my_levels.py"):
        (beside / name).write_text(pages.files("docs/extending.md")[name])
    config = loading.load("my_levels.py")
    config.data = {"name": "scenes", "size": (48, 64), "val_count": 8}
    study.run(config, beside / "run")
    assert "covering" in json.loads((beside / "run" / "eval-val.json").read_text())["scores"]


def test_the_one_file_with_all_is_trained_evaluated_and_predicts(installed, beside):  # noqa: F811
    code = OWN.read_text()
    assert len(code.splitlines()) < 60
    assert f"in {len(code.splitlines())} lines" in pages.read("docs/extending.md")
    (beside / "own.py").write_text(code)
    train, *others = [
        shlex.split(command)[1:]
        for command in pages.commands("docs/extending.md")
        if "own" in command
    ][:3]
    short = ["--config.total_steps=4", "--config.every_steps.eval=4"]
    for command in ([*train, *short], *others):
        done = run(installed, beside, *command)
        assert done.returncode == 0, done.stderr
    for split in ("val", "test"):
        scores = json.loads((beside / "runs" / "own" / f"eval-{split}.json").read_text())["scores"]
        assert 0.5 <= scores["confidence"] <= 1
    label = cv2.imread(str(beside / "out" / "photo_overlay.png"))
    assert label is not None


MYPY = """
[mypy]
implicit_reexport = False
check_untyped_defs = True
follow_imports = silent
ignore_missing_imports = True
[mypy-jax.*]
# Reading it takes more than half of the time.
follow_imports = skip
"""


def test_a_type_checker_takes_the_code_of_the_pages(tmp_path):
    """As `mypy --strict` of a user does: what they take from segjax is exported by its name.

    Of the blocks that are run this alone is asked: such code is short, and names no types.
    """
    if not importlib.util.find_spec("mypy"):
        pytest.skip("mypy checks the code of the pages, and is not there")
    modules = {"own.py": OWN.read_text()}
    for page in pages.PAGES:
        stem = pathlib.Path(page).stem
        modules |= {f"{stem}_{name}": code for name, code in pages.files(page).items()}
        blocks = [block.code for block in pages.blocks(page, "python") if not block.file]
        given = [f"{name}: Any" for name in GIVEN.get(page, {})]
        modules[f"{stem}_page.py"] = "\n".join(["from typing import Any", *given, *blocks])
    for name, code in modules.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "mypy.ini").write_text(MYPY)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir=/dev/null", *modules],
        cwd=tmp_path,
        env=programs.environment(MYPYPATH=str(programs.ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    told = [line for line in errors if "_page.py" not in line or "[attr-defined]" in line]
    assert not told, "\n".join(told)


def verb_of(command: str) -> list[str]:
    """[verb, argument, ...] of a command of segjax; [] of any other."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"] and words[2].startswith("segjax."):
        by_module = {module: verb for verb, (module, _) in verbs.VERBS.items()}
        module = words[2].removeprefix("segjax.")
        return [by_module.get(module, module), *words[3:]]
    return words[1:] if words[0] == "segjax" else []


def placeholder(words: list[str]) -> bool:
    """Whether a command stands for others."""
    return not words or words[0] in ("VERB", "--help") or "--config=RECIPE" in words


def test_every_verb_flag_recipe_and_word_on_the_pages_is_accepted(tmp_path):
    (tmp_path / "configs").symlink_to(programs.ROOT / "configs")
    told, asked = [], []
    for page in pages.PAGES:
        for command in pages.commands(page):
            if not placeholder(words := verb_of(command)):
                asked.append((page, command, words))
    for page in ("docs/start.md", "docs/extending.md"):
        for name, code in pages.files(page).items():
            (tmp_path / f"{pathlib.Path(page).stem}_{name}").write_text(code)
    (tmp_path / "own.py").write_text(OWN.read_text())
    commands = [
        [word.replace("--config=my_", f"--config={pathlib.Path(page).stem}_my_") for word in words]
        for page, _, words in asked
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.parsing"],
        input=json.dumps(commands),
        cwd=tmp_path,
        env=programs.environment(PYTHONPATH=str(programs.ROOT)),
        capture_output=True,
        text=True,
        check=True,
    )
    for (page, command, _), complaint in zip(asked, json.loads(done.stdout), strict=True):
        if complaint:
            told.append(f"{page}: {command}: {complaint}")
    assert not told, "\n".join(told)
    assert len(asked) > 50


def test_every_other_command_names_what_there_is():
    project = tomllib.loads(pages.read("pyproject.toml"))["project"]
    for page in pages.PAGES:
        for command in pages.commands(page):
            words = shlex.split(command)
            for extras in re.findall(r"\.\[([\w,]+)\]", command):
                assert set(extras.split(",")) <= project["optional-dependencies"].keys(), command
            if words[:2] == ["python", "-m"] and words[2].startswith("experiments."):
                assert importlib.util.find_spec(words[2]), command
            for word in words:
                if re.fullmatch(r"(tests|docs|experiments)/[\w/.]+", word):
                    assert (programs.ROOT / word).exists(), command


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_link_leads_somewhere(page):
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (programs.ROOT / page).parent / path if path else programs.ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in pages.anchors(str(target.resolve().relative_to(programs.ROOT))), link


def test_the_index_names_every_page():
    linked = {link.partition("#")[0] for link in pages.links("docs/README.md")}
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} <= linked


def rooms() -> list[list[str]]:
    """The rooms of docs/architecture.md, a list of those that share a row."""
    rows = re.findall(r"^\| (`[^|]+) \| ", pages.read("docs/architecture.md"), re.MULTILINE)
    return [re.findall(r"`([\w/]+?)(?:\.py|/)`", row) for row in rows]


def imports(path: pathlib.Path) -> set[str]:
    """The modules of segjax that a file names in imports, and what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("segjax.") for name in found if name.startswith("segjax.")}


def test_a_room_imports_only_rooms_above_it_in_the_table():
    rows = {room: row for row, names in enumerate(rooms()) for room in names}

    def room_of(*parts: str) -> str:
        return next(
            room for room in ("/".join(parts[:2]), parts[0], "") if room in rows or not room
        )

    package, there = programs.ROOT / "segjax", set()
    for folder, start in ((package, ()), (programs.ROOT / "configs", ("configs",))):
        for path in folder.rglob("*.py"):
            room = room_of(*start, *path.relative_to(folder).with_suffix("").parts)
            there.add(room)
            for name in imports(path):
                other = room_of(*name.split("."))
                if other not in ("", room):
                    assert rows[other] < rows[room], f"{path} imports {name}"
    assert there == rows.keys()


def builder():
    """docs/build.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_public_has_a_docstring():
    build = builder()
    names = build.public_modules()
    assert {"segjax.training.loop", "segjax.models.heads.fcn", "segjax.configs.fcn8s"} <= {*names}
    assert [path for name in names for path in build.undocumented(name)] == []


def test_names_in_angles_and_stars_of_a_docstring_are_text_on_its_page():
    text = "Writes <name>.png, `<code>`.\n\n    <kept> *kept*\n\nArgs:\n    **options: of __init__."
    assert builder().escaped(text) == (
        "Writes &lt;name>.png, `<code>`.\n\n    <kept> *kept*\n\n"
        "Args:\n    \\*\\*options: of \\_\\_init\\_\\_."
    )


def test_the_api_pages_are_built(tmp_path):
    if not importlib.util.find_spec("pdoc"):
        pytest.skip("pdoc builds the API pages, and is not there")
    done = subprocess.run(
        [sys.executable, str(DOCS / "build.py"), str(tmp_path)],
        env=programs.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "segjax" / "data" / "catalog.html").read_text()
    assert "images/&lt;split" in page
    assert "Raises" in page

"""The experiments: imports, links, commands, and pages that are what their scripts write."""

import ast
import functools
import graphlib
import importlib
import json
import pathlib
import re
import types

import pytest

from experiments.benchmarks.crf import bench as crf_bench
from experiments.benchmarks.throughput import report
from experiments.shared import pages as written
from segjax.configuration import loading
from tests import pages, programs

FOLDER = programs.ROOT / "experiments"
ROOMS = ("records", "benchmarks", "parity", "faults", "pods", "gpu")
# Packages that the tests do not have.
NEEDED = {"torch", "pydensecrf", "tensorflow", "jsonschema", "yaml"}
MARKDOWN = sorted(str(path.relative_to(programs.ROOT)) for path in FOLDER.rglob("*.md"))
PAGES_OF_SCRIPTS = {  # page -> script and JSON file beside it
    "records/crf/photographs.md": ("photographs", "photographs.json"),
    "records/fcn_heatmaps/README.md": ("run", "heatmaps.json"),
    "records/fcn_patchwise/README.md": ("run", "patchwise.json"),
    "records/large_image/README.md": ("run", "large_image.json"),
    "records/voc_photographs/README.md": ("run", "photographs.json"),
    "benchmarks/classical/results.md": ("bench", "results.json"),
    "benchmarks/convolutions/README.md": ("bench", "forms.json"),
    "benchmarks/loader/README.md": ("bench", "loader.json"),
    "benchmarks/selections/README.md": ("bench", "selections.json"),
    "benchmarks/space/README.md": ("bench", "space.json"),
    "faults/README.md": ("campaign", "faults.json"),
}


def _name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(programs.ROOT).with_suffix("").parts)


FILES = {_name(path): path for path in sorted(FOLDER.rglob("*.py"))}
RECORDS = sorted(path.parent.name for path in FOLDER.glob("records/*/config.json"))


@functools.cache
def _imports(path: pathlib.Path, *, everywhere: bool = True) -> list[tuple[str, str, str]]:
    """Imports of a file, inside of functions too: module, name taken from it or "", alias."""
    tree, found = ast.parse(path.read_text()), []
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.ImportFrom):
            found += [(node.module or "", a.name, a.asname or a.name) for a in node.names]
        elif isinstance(node, ast.Import):
            found += [(a.name, "", a.asname or a.name) for a in node.names]
    return found


def _experiments_imported(name: str, *, everywhere: bool = True) -> set[str]:
    imports = _imports(FILES[name], everywhere=everywhere)
    return {one for module, taken, _ in imports for one in (module, f"{module}.{taken}")} & {*FILES}


@functools.cache
def _needs_more(name: str) -> bool:
    """Whether a module cannot be imported without a package of NEEDED."""
    packages = {module.partition(".")[0] for module, *_ in _imports(FILES[name], everywhere=False)}
    others = _experiments_imported(name, everywhere=False)
    return bool(packages & NEEDED) or any(map(_needs_more, others))


@pytest.mark.parametrize("name", FILES)
def test_a_script_imports_and_takes_only_names_of_segjax_that_exist(name):
    if not _needs_more(name):
        importlib.import_module(name)
    modules = {}
    for module, taken, alias in _imports(FILES[name]):
        if module.partition(".")[0] == "segjax" and taken:
            there = importlib.import_module(module)
            if not hasattr(there, taken):
                there = importlib.import_module(f"{module}.{taken}")
            modules[alias] = getattr(there, taken, there)
        elif module.partition(".")[0] == "experiments":
            assert {module, f"{module}.{taken}"} & FILES.keys()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            there = modules.get(node.value.id)
            if isinstance(there, types.ModuleType):
                assert hasattr(there, node.attr), f"{node.value.id}.{node.attr}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: _experiments_imported(name) for name in FILES}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert len(order) == len(FILES)


def test_a_room_imports_nothing_of_another_and_shared_nothing_of_a_room():
    for name in FILES:
        room = name.split(".")[1]
        allowed = {room, "shared"} if room in ROOMS else {"shared"}
        taken = {other.split(".")[1] for other in _experiments_imported(name)}
        assert taken <= allowed, name


def test_segjax_and_its_recipes_import_no_experiment():
    for folder in ("segjax", "configs"):
        for path in (programs.ROOT / folder).rglob("*.py"):
            modules = {module.partition(".")[0] for module, *_ in _imports(path)}
            assert "experiments" not in modules, path


@pytest.mark.parametrize("page", MARKDOWN)
def test_a_page_links_to_what_is_there(page):
    for link in pages.links(page):
        target = link.partition("#")[0]
        assert not target or (programs.ROOT / page).parent.joinpath(target).exists(), link


def test_every_folder_of_a_room_stands_in_its_table():
    for room in ROOMS[:2]:
        table = pages.read(f"experiments/{room}/README.md")
        for path in (FOLDER / room).iterdir():
            if path.is_dir() and any(path.glob("*.*")):
                assert f"{path.name}" in table, path


@pytest.mark.parametrize("page", MARKDOWN)
def test_the_commands_in_the_blocks_of_a_page_name_scripts_and_recipes_that_exist(page):
    for block in pages.blocks(page, "bash"):
        for module in re.findall(r"python -m (experiments\.[\w.]+)", block.code):
            assert module in FILES, module
        for recipe in re.findall(r"--config=([\w:,]+)", block.code):
            loading.load(recipe)


def test_the_docstring_of_a_script_runs_that_script():
    for name, path in FILES.items():
        text = ast.get_docstring(ast.parse(path.read_text()), clean=False) or ""
        for module in re.findall(r"^ {4}.*?python -m (experiments\.[\w.]+)", text, re.MULTILINE):
            assert module == name


def _flat(tree: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("record", RECORDS)
def test_the_command_that_repeats_a_record_has_its_config(record):
    block = pages.blocks(f"experiments/records/{record}/README.md", "bash")[0]
    (command,) = [line for line in block.code.splitlines() if "segjax.main" in line][-1:]
    config = loading.load(re.search(r"--config=([\w:,]+)", command)[1])
    now = _flat(json.loads(config.to_json()))
    now |= {key: json.loads(v) for key, v in re.findall(r"--config\.([\w.]+)=(\S+)", command)}
    stored = _flat(json.loads((FOLDER / "records" / record / "config.json").read_text()))
    for key in stored.keys() & now.keys():
        assert now[key] == stored[key], key
    # What a record lacks came later, with a default that changes nothing.
    assert stored.keys() - now.keys() <= {"predict.output"}


@pytest.mark.parametrize("page", PAGES_OF_SCRIPTS)
def test_a_page_is_what_its_script_writes_of_its_numbers(page, tmp_path):
    path = FOLDER / page
    script, numbers = PAGES_OF_SCRIPTS[page]
    module = importlib.import_module(_name(path.with_name(f"{script}.py")))
    again = tmp_path / "page.md"
    written.write(again, module.page(json.loads(path.with_name(numbers).read_text())))
    assert again.read_text() == path.read_text()


def test_the_pages_of_throughput_and_of_the_crfs_time_are_what_their_scripts_write(tmp_path):
    again, stored = tmp_path / "README.md", FOLDER / "benchmarks"
    written.write(again, crf_bench.page(stored / "crf"))
    assert again.read_text() == (stored / "crf" / "README.md").read_text()
    for path in (stored / "throughput").glob("*.*"):
        if path.suffix in (".json", ".md"):
            (tmp_path / path.name).write_text(path.read_text())
    report.write(tmp_path)
    assert again.read_text() == (stored / "throughput" / "README.md").read_text()

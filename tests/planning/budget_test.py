"""Budgets of small recipes."""

import re

import jax
import pytest

from segjax import network, sharding
from segjax.compilers import targets
from segjax.data import catalog
from segjax.errors import InputError
from segjax.planning import budget, plan
from tests import tiny


def recipe(**changes) -> plan.Recipe:
    return plan.Recipe(tiny.short_config(**changes), tiny.SPEC, tiny.SIZE, tiny.SIZE)


def told(config, capsys, *, chip: str = "cpu", topology: str = "4", search: bool = False):
    """Name -> text of the lines of a budget."""
    budget.show(config, chip, topology, search=search)
    lines = capsys.readouterr().out.splitlines()
    return dict(re.split(r"\s+", line, maxsplit=1) for line in lines)


@pytest.fixture(autouse=True)
def quick_loader(monkeypatch):
    monkeypatch.setattr(budget, "_LOADER_SECONDS", 0.05)


def config(**changes):
    return tiny.short_config(**{"data__size": (32, 48)} | changes)


def test_the_memory_of_a_step_is_its_state_its_batch_and_what_it_works_in():
    target = targets.target("cpu", "4")
    found = plan.training_step(recipe(), target).memory
    training = tiny.assemble(recipe().config, 4)
    state = training.initial_state()
    assert found.state == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    parts = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(batch)]
    assert found.batch == sum(parts)
    compiled = training.step.lower(state, batch).compile().memory_analysis()
    assert found.temporary == compiled.temp_size_in_bytes
    results = compiled.output_size_in_bytes - compiled.alias_size_in_bytes
    assert found.total == found.state + found.batch + found.temporary + max(0, results)


def test_operations_are_those_of_all_devices():
    one, four = (
        plan.training_step(recipe(), targets.target("cpu", n)).operations for n in ("1", "4")
    )
    assert one.products == four.products > 0


def test_a_longer_accumulation_and_more_space_need_less():
    target = targets.target("cpu", "4")
    plain, parts, split = (
        plan.training_step(recipe().with_changes(**changes), target).memory.temporary
        for changes in ({}, {"accumulate": 2}, {"batch_size": 4, "space": 2})
    )
    assert parts < plain
    assert split < plain


def test_a_budget_tells_all_of_it(capsys):
    lines = told(config(), capsys, search=True)
    assert lines["devices"] == "4 x CPU, 4 x 1 (data x space)"
    scenes = catalog.load("scenes").spec
    parameters = tiny.count(network.model_of(config(), scenes).shapes()[0])
    assert lines["parameters"] == f"{parameters:,}"
    for name in ("batch", "operations", "memory", "moved", "all-reduce", "evaluation", "data"):
        assert name in lines, name
    assert "largest" in lines
    assert "--config.accumulate=2" in lines
    assert "--config.mesh.space=2" in lines


def test_a_known_chip_has_a_bound_and_hours(capsys, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    lines = told(config(total_steps=7), capsys, chip="v5e")
    assert "this machine's compiler" in lines["note"]
    assert "cloud.google.com/tpu/docs/v5e" in lines["chip"]
    assert re.search(r"[\d.]+ ms a step by \w+ .* images/s", lines["bound"])
    assert re.search(r"at least [\d.]+ h for 7 steps", lines["run"])
    assert lines["efficiency"].endswith("% if nothing hides the network")


def test_a_step_that_does_not_fit_says_by_how_much_and_what_would(monkeypatch, capsys):
    monkeypatch.setattr(budget._Budget, "room", property(lambda self: 100_000.0))
    with pytest.raises(InputError, match=r"does not fit into 0.1 MiB by [\d.]+ MiB: lower config"):
        told(config(), capsys)


def test_data_that_are_not_here_are_no_hindrance(capsys, tmp_path):
    made = config()
    with made.unlocked():
        made.data = {"name": "camvid", "root": str(tmp_path)}
    lines = told(made, capsys)
    assert lines["note"].startswith("The data are not here")
    assert lines["data"] == "not here"
    assert "32 x 48" in lines["evaluation"]


def test_a_batch_that_does_not_divide_is_refused(capsys):
    with pytest.raises(InputError, match="6 images does not divide"):
        told(config(batch_size=6), capsys)

"""Bounds beside sums by hand."""

import types

import pytest

from segjax.compilers import chips
from segjax.compilers.operations import Operations
from segjax.compilers.optimised import Collective, Traffic
from segjax.planning import plan, roofline


def target(chip: str | None, devices: int, processes: int = 1):
    return types.SimpleNamespace(
        chip=chip and chips.CHIPS[chip], devices=(None,) * devices, processes=processes
    )


def program(**more) -> plan.Program:
    collectives = (Collective("all-reduce", 3, 10**9), Collective("collective-permute", 1, 10**8))
    traffic = Traffic(8 * 10**9, {}, collectives)
    return plan.Program(None, Operations(products=4e12, again=1e12), traffic, 0.0)


def test_a_bound_is_the_longest_of_three_times():
    found = roofline.bound(program(), target("v5e", 4), "bfloat16")
    assert found.compute == pytest.approx(5e12 / 4 / 197e12)
    assert found.memory == pytest.approx(8e9 / 819e9)
    assert found.network == pytest.approx((1.5 * 1e9 + 1e8) / 200e9)
    assert (found.seconds, found.limit) == (found.memory, "memory")
    assert found.efficiency == pytest.approx(found.memory / (found.memory + found.network))


def test_gpus_of_several_hosts_meet_over_the_network():
    near, far = (roofline.bound(program(), target("h200", 8, n), "float32") for n in (1, 4))
    assert near.network == pytest.approx((1.75 * 1e9 + 1e8) / 450e9)
    assert far.network == pytest.approx((1.75 * 1e9 + 1e8) / 50e9)
    assert near.compute == pytest.approx(5e12 / 8 / 494e12)


def test_a_single_chip_sends_nothing_and_an_unknown_one_has_no_bound():
    assert roofline.bound(program(), target("h200", 1), "bfloat16").network == 0
    assert roofline.bound(program(), target(None, 1), "bfloat16") is None
    refused = plan.Program(None, Operations(), None, 0.0)
    assert roofline.bound(refused, target("h200", 1), "bfloat16") is None

"""Devices to compile for, and the chips that they are."""

import importlib.util
import types

import jax
import jax.numpy as jnp
import pytest

from segjax.compilers import chips, targets
from segjax.errors import InputError

INSTALLED = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}
NONE_HERE = [n for n, package in INSTALLED.items() if not importlib.util.find_spec(package)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU v4", "v4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("cpu", None),
        ("TPU v9", None),
        ("NVIDIA T4", None),
    ],
)
def test_a_device_is_known_by_what_jax_calls_it(kind, name):
    found = chips.of_device(types.SimpleNamespace(device_kind=kind))
    assert (found and found.name) == name


def test_jax_takes_three_quarters_of_a_gpu_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert chips.CHIPS["h200"].usable == 0.75 * 141e9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert chips.CHIPS["h200"].usable == pytest.approx(0.9 * 141e9)
    assert chips.CHIPS["v5e"].usable == 16 * 2**30


def test_every_chip_has_rates_for_every_dtype_and_a_source():
    for chip in chips.CHIPS.values():
        assert set(chip.rates) == {"float32", "bfloat16"}
        assert chip.source
        assert chip.memory > 10e9
        assert chip.link < chip.bandwidth


@pytest.mark.parametrize(
    ("chip", "topology", "told"),
    [
        ("h2000", "", r"--chip: unknown 'h2000'; known: .*Did you mean \"h200\"\?"),
        ("v5e", "2y4", r"--topology: got '2y4'; it is like 8, 4x8 or 8x8x8"),
        ("v5e", "0x2", "--topology"),
        ("", "2x2", "--topology: of which chip"),
        ("cpu", "64", r"64 devices, but JAX has 8 here"),
    ],
)
def test_a_chip_or_topology_that_there_is_not_is_refused(chip, topology, told):
    assert jax.device_count() == 8  # JAX has its devices from here on
    with pytest.raises(InputError, match=told):
        targets.target(chip, topology)


@pytest.mark.skipif(not NONE_HERE, reason="both compilers are installed")
def test_a_compiler_that_is_not_there_is_named_and_this_machine_s_takes_its_place():
    name, extra = {"tpu": ("v5e", "tpu"), "cuda": ("h200", "cuda12")}[NONE_HERE[0]]
    found = targets.target(name, "8")
    assert (found.own, len(found.devices), found.chip.name) == (False, 8, name)
    assert f"segjax[{extra}]" in targets.missing(found)


def test_a_cpu_has_no_rates_and_misses_no_compiler():
    found = targets.target("cpu", "2x2")
    assert (found.chip, len(found.devices), found.processes) == (None, 4, 1)
    assert targets.missing(found) == ""
    assert targets.target("", "").devices == tuple(jax.devices())


@pytest.mark.skipif("tpu" in NONE_HERE, reason="libtpu is not installed")
@pytest.mark.parametrize(
    ("chip", "topology", "devices", "processes"),
    [("v5e", "", 1, 1), ("v5e", "4x4", 16, 4), ("v5p", "8x8x8", 512, 128), ("v6e", "2x2", 4, 1)],
)
def test_the_tpu_compiler_compiles_for_slices_of_any_size(chip, topology, devices, processes):
    found = targets.target(chip, topology)
    assert (len(found.devices), found.processes, found.own) == (devices, processes, True)
    assert chips.of_device(found.devices[0]) is found.chip


@pytest.mark.skipif("tpu" in NONE_HERE, reason="libtpu is not installed")
def test_a_slice_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="the TPU compiler knows no v5e:3x5"):
        targets.target("v5e", "3x5")


@pytest.mark.skipif("cuda" in NONE_HERE, reason="jax's CUDA build is not installed")
@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200"])
def test_the_gpu_compiler_compiles_for_every_gpu(name):
    found = targets.target(name, "2x4")
    assert (len(found.devices), found.processes, found.own) == (8, 2, True)
    assert chips.of_device(found.devices[0]) is found.chip
    x = jax.ShapeDtypeStruct((8, 8), jnp.bfloat16)
    on = jax.sharding.SingleDeviceSharding(found.devices[0])
    compiled = jax.jit(jnp.matmul, in_shardings=on, out_shardings=on).lower(x, x)
    assert compiled.compile(dict(found.options)).memory_analysis() is not None

"""The devices that a program is compiled for: those of this machine, or of a topology elsewhere.

The compilers of TPUs (libtpu) and of GPUs (jax's CUDA build) run without a device.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping

import jax
from jax.experimental import topologies

from segjax.compilers import chips
from segjax.errors import InputError, choose

_PACKAGES = {"tpu": "libtpu", "cuda": "jax_cuda12_plugin"}
_EXTRAS = {"tpu": "segjax[tpu]", "cuda": "segjax[cuda12]"}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for.

    Attributes:
        chip: the chip, None for a CPU.
        devices: the devices.
        own: whether the compiler is the chip's; else it is this machine's.
        options: options of the compiler.
    """

    chip: chips.Chip | None
    devices: tuple[jax.Device, ...]
    own: bool
    options: Mapping[str, str | bool]

    @property
    def processes(self) -> int:
        """The number of processes that drive the devices."""
        return len({device.process_index for device in self.devices})


def target(chip: str, topology: str) -> Target:
    """The devices of a chip and a topology.

    Where the chip's compiler is not installed, as many devices of this machine's CPU take their
    place; so that they are there, call it before the first use of JAX's devices.

    Args:
        chip: one of `chips.CHIPS`, "cpu", or "" for what this machine has.
        topology: chips along each axis of a slice of TPUs, such as "4x8" or "8x8x8"; GPUs, or hosts
            and GPUs of each, such as "8" or "4x8"; devices of a CPU. "" for a single one.

    Raises:
        InputError: if the chip is unknown, or the topology is none of its own.
    """
    sizes = _sizes(topology)
    if not chip:
        if topology:
            raise InputError("--topology: of which chip? Give --chip, too.")
        return Target(chips.of_device(jax.devices()[0]), tuple(jax.devices()), True, {})
    # Nothing is run. JAX's CUDA build describes no other GPUs once it looked for some here.
    jax.config.update("jax_platforms", "cpu")
    if chip == "cpu":
        return Target(None, _of_cpu(math.prod(sizes)), True, {})
    choose("--chip", chip, (*chips.CHIPS, "cpu"))
    found = chips.CHIPS[chip]
    if importlib.util.find_spec(_PACKAGES[found.platform]) is None:
        return Target(found, _of_cpu(math.prod(sizes)), False, {})
    make = _of_tpu if found.platform == "tpu" else _of_gpu
    return make(found, sizes)


def missing(target: Target) -> str:
    """What a budget says of the compiler that it had to do without; "" where it had the chip's."""
    if target.own or target.chip is None:
        return ""
    extra = _EXTRAS[target.chip.platform]
    return (
        f"Memory and bytes are those of this machine's compiler, not of {target.chip.name}'s: "
        f"pip install '{extra}' (it needs no device)."
    )


def _sizes(topology: str) -> tuple[int, ...]:
    if topology and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", topology):
        raise InputError(f"--topology: got {topology!r}; it is like 8, 4x8 or 8x8x8.")
    return tuple(int(n) for n in topology.split("x")) if topology else (1,)


def _of_cpu(count: int) -> tuple[jax.Device, ...]:
    with contextlib.suppress(RuntimeError):  # JAX has its devices already
        jax.config.update("jax_num_cpu_devices", count)
    if jax.device_count() < count:
        raise InputError(f"--topology: {count} devices, but JAX has {jax.device_count()} here.")
    return tuple(jax.devices()[:count])


def _of_tpu(chip: chips.Chip, sizes: tuple[int, ...]) -> Target:
    # So that nothing looks for a TPU, here or in the cloud.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    # No TPU is opened, so that another process may have one, or compile, too.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    axes = 2 if chip.name in ("v5e", "v6e") else 3
    shape = (*sizes, *[1] * (axes - len(sizes)))
    name = f"{chip.name}:{'x'.join(map(str, shape))}"
    # A host has 2 x 2 chips, unless there are fewer in all.
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(sizes) == 1 else {}
    try:
        described = topologies.get_topology_desc(name, platform="tpu", **bounds)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--topology: the TPU compiler knows no {name}: {reason}") from error
    return Target(chip, tuple(described.devices), True, {})


def _of_gpu(chip: chips.Chip, sizes: tuple[int, ...]) -> Target:
    if len(sizes) > 2:
        raise InputError("--topology: of GPUs it is like 8 (one host) or 4x8 (4 hosts of 8).")
    hosts, each = sizes if len(sizes) == 2 else (1, *sizes)
    described = topologies.get_topology_desc(
        topology_name="",
        platform="cuda",
        target_config=_gpu_config(chip),
        topology=f"1x{hosts}x{each}",
    )
    # Nothing can be tuned without a device, and Triton's products need to be.
    options: dict[str, str | bool] = {
        "xla_gpu_autotune_level": "0",
        "xla_gpu_enable_triton_gemm": False,
    }
    return Target(chip, tuple(described.devices), True, options)


_CORES = {  # chip -> its multiprocessors, compute capability, clock in GHz
    "a100": (108, 8, 1.41),
    "h100": (132, 9, 1.98),
    "h200": (132, 9, 1.98),
    "b200": (148, 10, 1.97),
}


def _gpu_config(chip: chips.Chip) -> str:
    """The device as XLA wants it described."""
    cores, major, clock = _CORES[chip.name]
    shared = 167936 if major == 8 else 233472
    return f"""gpu_device_info {{ threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: {shared} threads_per_core_limit: 2048
  core_count: {cores} fpus_per_core: {64 if major == 8 else 128} block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {int(chip.bandwidth)}
  l2_cache_size: {41943040 if major == 8 else 52428800} clock_rate_ghz: {clock}
  device_memory_size: {int(chip.memory)} shared_memory_per_block_optin: {shared - 1024}
  cuda_compute_capability {{ major: {major} }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536 }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{chip.kinds[0]}" """

"""The chips that a budget knows: their makers' rates, and what they are called."""

import dataclasses
import os
from collections.abc import Mapping

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
    """An accelerator, as its maker describes it: dense rates, without sparsity.

    Attributes:
        name: as in `--chip`.
        platform: "tpu", "cuda" or "cpu".
        kinds: what JAX calls its devices.
        rates: dtype of the computation -> floating-point operations a second. float32 is what JAX
            makes of it by default: products of bfloat16 on TPUs and of TF32 on GPUs.
        memory: bytes of device memory.
        bandwidth: bytes a second between the chip and its memory.
        link: bytes a second that a chip sends to the others of its host or slice, and receives.
        network: bytes a second between hosts, for each chip; None: as `link` (slices of TPUs).
        source: where these are published.
    """

    name: str
    platform: str
    kinds: tuple[str, ...]
    rates: Mapping[str, float]
    memory: float
    bandwidth: float
    link: float
    network: float | None
    source: str

    @property
    def usable(self) -> float:
        """The bytes that JAX gives to programs: of a GPU three quarters, unless told otherwise."""
        if self.platform != "cuda":
            return self.memory
        return self.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75"))


def _tpu(
    name: str, kinds: tuple[str, ...], tera: float, gib: float, giga: float, ici: float
) -> Chip:
    rates = {"bfloat16": tera * 1e12, "float32": tera * 1e12}
    page = f"cloud.google.com/tpu/docs/{name}"
    return Chip(name, "tpu", kinds, rates, gib * 2**30, giga * 1e9, ici * 1e9, None, page)


def _gpu(
    name: str, tera: tuple[float, float], memory: float, bandwidth: float, nvlink: float
) -> Chip:
    """`nvlink` counts both directions, as the data sheets do; a network card a GPU, 400 Gbit/s."""
    rates = {"bfloat16": tera[0] * 1e12, "float32": tera[1] * 1e12}
    sheet = f"NVIDIA {name.upper()} data sheet (SXM)"
    kinds = (f"NVIDIA {name.upper()}",)
    return Chip(
        name, "cuda", kinds, rates, memory * 1e9, bandwidth * 1e12, nvlink * 1e9 / 2, 50e9, sheet
    )


_ALL = (
    _gpu("a100", (312, 156), 80, 2.04, 600),
    _gpu("h100", (989, 494), 80, 3.35, 900),
    _gpu("h200", (989, 494), 141, 4.8, 900),
    _gpu("b200", (2250, 1125), 180, 8.0, 1800),
    _tpu("v4", ("TPU v4",), 137.5, 16, 614, 150),  # a device is one of the chip's two cores
    _tpu("v5e", ("TPU v5 lite", "TPU v5e"), 197, 16, 819, 200),
    _tpu("v5p", ("TPU v5", "TPU v5p"), 459, 95, 2765, 600),
    _tpu("v6e", ("TPU v6 lite", "TPU v6e"), 918, 32, 1640, 400),
)
CHIPS = {chip.name: chip for chip in _ALL}
"""Chip by name."""


def of_device(device: jax.Device) -> Chip | None:
    """The chip that a device is; None for one that is not known, such as a CPU."""
    kind = device.device_kind
    named = {known: chip for chip in _ALL for known in chip.kinds}
    # The cards of a GPU have names such as "NVIDIA H100 80GB HBM3".
    of_gpu = (c for known, c in named.items() if c.platform == "cuda" and kind.startswith(known))
    return named.get(kind) or next(of_gpu, None)

"""The least time that a chip's rates allow a program: a bound, not a forecast."""

import dataclasses
from collections.abc import Callable, Mapping

from segjax.compilers import targets
from segjax.planning.plan import Program


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds of one run of a program, were one thing alone to take time.

    Attributes:
        compute: its products at the chip's rate.
        memory: the bytes that it moves at the rate of the chip's memory.
        network: its collectives at the rate of the slowest link that they cross.
    """

    compute: float
    memory: float
    network: float

    @property
    def seconds(self) -> float:
        """The least time of a run, with all three at once."""
        return max(self.compute, self.memory, self.network)

    @property
    def limit(self) -> str:
        """What takes the longest: "compute", "memory" or "network"."""
        times = dataclasses.asdict(self)
        return max(times, key=times.__getitem__)

    @property
    def efficiency(self) -> float:
        """The share of the time that is left if nothing hides the network, 0 to 1."""
        alone = max(self.compute, self.memory)
        return alone / (alone + self.network)


# Kind of collective -> bytes that a device sends for each byte of its result, on n devices.
_SENT: Mapping[str, Callable[[int], float]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
    "collective-broadcast": lambda n: 1,
}


def bound(program: Program, target: targets.Target, dtype: str) -> Bound | None:
    """The bound of a program on its target; None if the chip is unknown or the step did not fit.

    All collectives count as if they went over all devices, in rings.

    Args:
        program: the program.
        target: what it was compiled for.
        dtype: of its computation.
    """
    chip, n = target.chip, len(target.devices)
    if chip is None or program.traffic is None:
        return None
    done = program.operations
    link = chip.link
    if target.processes > 1 and chip.network is not None:
        link = chip.network
    sent = sum(_SENT[c.kind](n) * c.bytes for c in program.traffic.collectives) if n > 1 else 0.0
    return Bound(
        (done.products + done.again) / n / chip.rates[dtype],
        program.traffic.bytes / chip.bandwidth,
        sent / link,
    )

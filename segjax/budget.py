"""What a training will need, before it runs: memory, operations, collectives, time, data.

    segjax budget --config=RECIPE[:WORD,...] [--chip=v5e] [--topology=4x8]
    python -m segjax.budget --config=RECIPE[:WORD,...] ...

It compiles the training and the evaluation step and prints what they need of a device, the largest
batch that fits, what a longer accumulation or another `mesh.space` would change, and the least time
that the chip's rates allow. Nothing is run and nothing is written.

Chips: a100, h100, h200, b200, v4, v5e, v5p, v6e, cpu; without --chip, what this machine has. A
topology is the chips of a slice (2x4, 8x8x8), the GPUs of a host (8), or hosts and their GPUs
(4x8). With segjax[tpu] or segjax[cuda12] installed the chip's own compiler answers, of which
devices there need be none; else this machine's does, and a line says so.
"""

from absl import flags

from segjax import cli
from segjax.errors import InputError


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "data_root")
    flags.DEFINE_string("chip", "", "chip to plan for; what this machine has by default")
    flags.DEFINE_string("topology", "", "its chips, such as 8, 2x4 or 8x8x8; one by default")
    flags.DEFINE_boolean("search", True, "look for the largest batch, and for what would change it")


def main(_argv: list[str]) -> None:
    """Prints the budget."""
    given, config = flags.FLAGS, cli.config()
    if config.method.name:
        raise InputError("--config: a budget is of a network; this recipe is a classical method.")
    # After the flags: a manual does not need JAX.
    from segjax.compilers import cache
    from segjax.planning import budget

    if not given.chip or given.chip == "cpu":
        cache.keep()  # programs for devices that are not here could not be read again
    budget.show(config, given.chip, given.topology, search=given.search)


VERB = cli.Verb(define_flags, main)

if __name__ == "__main__":
    VERB.run()

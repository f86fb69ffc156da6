"""Runs a recipe: trains and evaluates its network, or runs its classical method over a data set.

    segjax train --config=RECIPE[:WORD,...] [--workdir=DIR] [--config.KEY=VALUE ...]
    python -m segjax.main --config=RECIPE[:WORD,...] ...

RECIPE is a shipped one, such as fcn8s, or the path of a file. `segjax recipes` lists the recipes
and their words; every key of segjax/configs/default.py is a flag, such as --config.optim.lr=0.01.

The run folder gets the config, checkpoints, scores, pictures and logs. A training that finds its
checkpoint there goes on from it. SIGTERM saves a checkpoint and ends with status 0, Ctrl-C with 130
and SIGHUP with 129; a second signal ends at once. One run writes into a folder at a time.

A run that ends because its loss is not finite names the batch that it saved; `--replay=FILE` with
the same command runs that batch again under NaN checks.
"""

from absl import flags

from segjax import cli
from segjax.runs import orders


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "distributed")
    cli.define(workdir=("", "run folder; runs/<recipe>[-<word>...] by default"))
    flags.DEFINE_string("replay", "", "file of a saved batch, run again under NaN checks")


def main(_argv: list[str]) -> None:
    """Joins the other processes and starts the run."""
    config, workdir = cli.config(), cli.workdir()
    # After the start of the processes: importing these must not touch the devices before.
    if config.method.name:
        cli.start_processes()
        from segjax import study

        study.run(config, workdir)
        return
    with orders.obeyed(ends_program=True):  # from here on: the start alone takes seconds
        cli.start_processes()
        from segjax.training import loop

        loop.run(config, workdir, flags.FLAGS.replay)


VERB = cli.Verb(define_flags, main)

if __name__ == "__main__":
    VERB.run()

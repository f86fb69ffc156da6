"""Runs a recipe: python -m segjax.main --config=configs/fcn8s.py [--workdir=DIR].

Trains and evaluates the recipe's network, or runs its classical method over a data set. A training
that finds its own checkpoint in the workdir goes on from there; SIGTERM saves and leaves with
status 0.
"""

from absl import flags

from segjax import cli


def define_flags() -> None:
    """The flags of the verb."""
    cli.define("config", "distributed")
    cli.define(workdir=("", "run folder; runs/<recipe>[-<variants>] by default"))
    flags.DEFINE_string("replay", "", "a saved batch to run again under NaN checks")


def main(_argv: list[str]) -> None:
    """Joins the other processes and starts the run."""
    config, workdir = cli.config(), cli.workdir()
    cli.start_processes()
    # After the start: importing these must not touch the devices before.
    if config.method.name:
        from segjax import study

        study.run(config, workdir)
    else:
        from segjax.training import loop

        loop.run(config, workdir, flags.FLAGS.replay)


VERB = cli.Verb(define_flags, main)

if __name__ == "__main__":
    VERB.run()

"""Runs a recipe: python -m segjax.main --config=configs/fcn8s.py [--workdir=DIR].

Trains and evaluates the recipe's network, or runs its classical method over a data set. A training
that finds its own checkpoint in the workdir goes on from there; SIGTERM saves and leaves with
status 0.
"""

from absl import flags

from segjax import cli, distributed

_REPLAY = flags.DEFINE_string("replay", "", "a saved batch to run again under NaN checks")


def main(_argv: list[str]) -> None:
    """Joins the other processes and starts the run."""
    config, workdir = cli.config(), cli.workdir()
    distributed.start()
    # After the start: importing these must not touch the devices before.
    if config.method.name:
        from segjax import study

        study.run(config, workdir)
    else:
        from segjax.training import loop

        loop.run(config, workdir, _REPLAY.value)


if __name__ == "__main__":
    cli.define_config()
    cli.define_workdir()
    distributed.define_flags()
    flags.adopt_module_key_flags(cli)
    flags.adopt_module_key_flags(distributed)
    flags.declare_key_flag("config")
    cli.run(main)

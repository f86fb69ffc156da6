"""Odd values of config keys: each is refused in one line that names the key, or trains.

Every key gets values of the wrong type, outside its range, at its ends and beyond what a number
holds. A value that its kind allows is accepted as a start is, and its training step is compiled and
taken; the loss must be finite or the step skipped.
"""

import math
import pathlib
import random
from typing import Any

import jax
import ml_collections

from experiments.faults import outcome
from experiments.faults.outcome import Outcome
from segjax import sharding
from segjax.configs import default, fcn8s
from segjax.errors import InputError
from segjax.training import acceptance, inputs

FAULT = "an odd value of a config key"

ODD: tuple[Any, ...] = (
    None, "", " ", "x", "é", "module:Nope", "no.such.module:Name", "a" * 1000,
    -1, 0, 1, 2, 3, 0.5, -0.5, 1e30, 1e-30, math.nan, math.inf, -math.inf,
    2**31 - 1, 2**31, 2**63, True, False, (), (1,), (0, 0), (1, 2, 3), (math.nan, 1.0), (-3, 4),
    ("x", "y"), (("x", 1.0),), {}, {"name": "x"}, {"name": ""}, {"name": None}, b"x",
)  # fmt: skip
"""Values of every type, and of every size that a type has."""


def run(folder: pathlib.Path, count: int, seed: int = 0) -> list[Outcome]:
    """Tries `count` values, spread over all keys.

    Args:
        folder: for run folders, of which none may come to be.
        count: how many.
        seed: of the choice.
    """
    chosen, outcomes = random.Random(seed), []
    keys = [*default.KEYS]
    for number in range(count):
        key = keys[number % len(keys)]
        outcomes.append(_try(key, chosen.choice(ODD), folder / str(number)))
    return outcomes


def recipe() -> ml_collections.ConfigDict:
    """FCN-8s on the scenes, as small as it gets."""
    config = fcn8s.get_config("smoke")
    config.model.backbone.width, config.model.backbone.fc_width = 4, 8
    return config


def _try(key: str, value: Any, workdir: pathlib.Path) -> Outcome:
    case = f"{key} = {value!r:.60}"
    tree = recipe().to_dict()  # a ConfigDict would refuse values of another type
    group = tree
    *parents, last = key.split(".")
    for name in parents:
        group = group[name]
    group[last] = value
    try:
        config = ml_collections.ConfigDict(tree)
        accepted = acceptance.accept(config, workdir)
        loss = _step(accepted)
    except InputError as error:
        return _refused(key, case, str(error), workdir)
    except Exception as error:
        return outcome.unexpected(FAULT, case, error)
    if workdir.exists():
        return Outcome(FAULT, case, "silent", "a run folder was made before the start")
    return Outcome(FAULT, case, "survived", f"loss {loss}")


def _refused(key: str, case: str, said: str, workdir: pathlib.Path) -> Outcome:
    """A line that names the key, or the part of it that is wrong; and nothing is there."""
    if workdir.exists():
        return Outcome(FAULT, case, "lost", f"a run folder is there after: {said}")
    named = any(part in said for part in (key, key.split(".")[0]))
    short = "\n" not in said and len(said) < 1500
    return Outcome(FAULT, case, "refused" if named and short else "traceback", said[:300])


def _step(accepted: acceptance.Accepted) -> float:
    """The loss of one step."""
    training = accepted.training
    step = accepted.step.compile()
    batches = inputs.train_batches(training, accepted.train, first_step=0)
    batch = next(batches)
    batches.close()
    ts = training.initial_state()
    _, scalars = step(ts, sharding.put_batch(training.mesh, batch))
    return float(jax.device_get(scalars["loss"]))

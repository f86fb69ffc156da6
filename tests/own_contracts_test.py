"""What a config names, but does not keep the contract of its door, is one clear line."""

import jax
import jax.numpy as jnp
import pytest

from segjax import losses
from segjax.data import catalog
from segjax.errors import InputError
from segjax.training import augment
from tests import tiny
from tests.losses import made
from tests.models import build_test
from tests.training import optim_test


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: catalog.load("tests.own_contracts_test:nothing"),
            r"config.data.name: .*nothing returns a dict; a data set is a Dataset or",
        ),
        (
            lambda: losses.build(class_weights=None, name="tests.own_contracts_test:nothing"),
            "config.loss: .*makes a dict, not a loss",
        ),
        (
            lambda: losses.build(class_weights=None, name="tests.own_contracts_test:Triple").total(
                (made.random_scores(),), jnp.zeros((2, 4, 5), jnp.uint8)
            ),
            r"config.loss: .*Triple gives arrays of shape \[\(\), \(\), \(\)\]; a loss",
        ),
        (
            lambda: optim_test.build(name="tests.own_contracts_test:undecayed"),
            "config.optim.options: .*undecayed is called with .add_decay=..., .... and does not",
        ),
        (
            lambda: optim_test.build(name="tests.own_contracts_test:still"),
            "config.optim.name: .*still returns str; an optimiser returns one optax transf",
        ),
        (
            lambda: optim_test.build(schedule="tests.own_contracts_test:rates"),
            r"config.optim.schedule: .*rates returns an array of shape \[3\]; a schedule returns a",
        ),
        (
            lambda: optim_test.build(schedule="tests.own_contracts_test:nothing"),
            r"config.optim.options: .*nothing is called with \(t, span, ...\) and does not",
        ),
        (
            lambda: augment.build(name="tests.own_contracts_test:nothing"),
            "config.augment.name: .*nothing makes a dict, not an augmentation",
        ),
        (
            lambda: augment.batch(
                jax.random.key(0),
                tiny.batch(0),
                lambda key, image, label, size, fill: (image, label),
                (0, 0, 0),
            ),
            r"config.augment.name: .*returns uint8\[32, 48, 3\] and uint8\[32, 48\]; it must be",
        ),
        (
            lambda: build_test.shapes(head={"name": "tests.own_contracts_test:nothing"}),
            r"config.model.head: .*nothing is called with \(channels=..., num_classes=..., dtype=",
        ),
    ],
)
def test_what_does_not_keep_its_contract_is_refused(build, message):
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def nothing() -> dict:
    return {}


def undecayed() -> list:
    return []


def still(add_decay) -> str:
    return "still"


class Triple:
    def __call__(self, place):
        return (*place.sum_images(jnp.zeros(2)), jnp.zeros(()))


def rates(t, span):
    return jnp.ones(3)

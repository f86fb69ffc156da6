"""Every door of the config for a name: ours and a user's pass the same tests at each of them."""

import dataclasses
import functools
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import classical, losses, models
from segjax.data import catalog
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.models import functional
from segjax.training import augment
from tests import tiny
from tests.losses import made
from tests.training import augment_test, optim_test

USERS = """
import dataclasses
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from segjax.data.dataset import Dataset, numbered
from segjax.losses import pixels
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize

class Backbone(nnx.Module):
    def __init__(self, *, width: int, dtype=None, rngs):
        self.conv = nnx.Conv(3, width, (4, 4), strides=4, dtype=dtype, rngs=rngs)
        self.channels = {"stage2": width}

    def __call__(self, x, rngs=None):
        return Features({"stage2": self.conv(x)}, {"stage2": 4})

class Head(nnx.Module):
    def __init__(self, channels, num_classes, *, width: int, dtype=None, rngs):
        make = {"dtype": dtype, "rngs": rngs}
        self.wide = nnx.Conv(next(iter(channels.values())), width, (1, 1), **make)
        self.score = nnx.Conv(width, num_classes, (1, 1), **make)

    def __call__(self, features, rngs=None):
        stage = next(iter(features.stages.values()))
        return Scores(self.score(self.wide(stage)), Resize("half_pixel", 4))

@dataclasses.dataclass(frozen=True)
class Loss:
    width: float

    def __call__(self, place):
        return place.sum_pixels(lambda x, label: self.width * pixels.cross_entropy(x, label))

def optimiser(*, momentum, b2, add_decay, width: float):
    return [optax.scale_by_lion(momentum, b2), *add_decay, optax.scale(width)]

def schedule(t, span, *, width: float):
    return 1 - width * t / span

@dataclasses.dataclass(frozen=True)
class Augmentation:
    size: tuple
    width: float

    def __call__(self, key, image, label, size, fill):
        height, width = self.size
        return self.width * image[:height, :width].astype(jnp.float32), label[:height, :width]

@dataclasses.dataclass(frozen=True)
class Stripes:
    width: int

    def __len__(self):
        return 3

    def name(self, index):
        return f"stripe{index}"

    def __getitem__(self, index):
        label = np.arange(24, dtype=np.uint8).reshape(4, 6) // self.width % 2
        return np.stack([100 * label] * 3, axis=-1), label

def data(*, width: int):
    return Dataset(numbered("stripes", ("dark", "light")), {"train": Stripes(width)})

def method(image, *, width: int):
    return (image[..., 0] // width).astype(jnp.int32)
"""


@dataclasses.dataclass(frozen=True)
class Door:
    """A key of the config that takes a name.

    Attributes:
        key: that key, and that of the options.
        build: (name, options) -> what the name stands for, built.
        ours: a name of the table and options that it needs.
        theirs: a name in USERS, whose one option that must be given is `width`.
    """

    key: str
    options_key: str
    build: Callable
    ours: tuple[str, dict]
    theirs: str


def shapes(**parts) -> jax.ShapeDtypeStruct:
    """The shape of a network's last output on one image of 8 x 12."""
    trunk = {"name": "my_doors:Backbone", "width": 4}
    parts = {"backbone": trunk, "head": {"name": "my_doors:Head", "width": 4}, "aux": None} | parts

    def run(x):
        network = models.build(**parts, num_classes=5, dtype="float32", rngs=functional.keys(0))
        return network(x, rngs=nnx.Rngs(0))[-1].values

    return jax.eval_shape(run, jnp.zeros((1, 8, 12, 3)))


def part(name: str) -> Callable:
    return lambda chosen, options: shapes(**{name: {"name": chosen} | options})


def loss(name: str, options: dict) -> losses.Loss:
    return losses.build(class_weights=None, name=name, options=options)


def added_loss(name: str, options: dict) -> losses.Loss:
    return losses.build(class_weights=None, also=((name, 0.5),), options=options)


def augmentation(name: str, options: dict) -> augment.Augmentation:
    settings = augment_test.STILL | {"size": (8, 12)}
    return augment.build(**settings, name=name, options=options)


DOORS = {
    "backbone": Door(
        "config.model.backbone.name",
        "config.model.backbone",
        part("backbone"),
        (
            "mobilenet_v2",
            {"width": 0.25, "output_stride": 16, "norm": {"name": "none"}},
        ),
        "Backbone",
    ),
    "head": Door(
        "config.model.head.name",
        "config.model.head",
        part("head"),
        ("conv", {"width": 4, "norm": {"name": "none"}}),
        "Head",
    ),
    "aux": Door(
        "config.model.aux.name",
        "config.model.aux",
        part("aux"),
        ("conv", {"width": 4, "norm": {"name": "none"}}),
        "Head",
    ),
    "loss": Door("config.loss.name", "config.loss.options", loss, ("focal", {}), "Loss"),
    "added loss": Door(
        "config.loss.also", "config.loss.options", added_loss, ("focal", {}), "Loss"
    ),
    "optimiser": Door(
        "config.optim.name",
        "config.optim.options",
        lambda name, options: optim_test.build(name=name, options=options),
        ("adamw", {}),
        "optimiser",
    ),
    "schedule": Door(
        "config.optim.schedule",
        "config.optim.options",
        lambda name, options: optim_test.build(schedule=name, options=options),
        ("cosine", {}),
        "schedule",
    ),
    "augmentation": Door(
        "config.augment.name",
        "config.augment.options",
        augmentation,
        ("standard", {}),
        "Augmentation",
    ),
    "data set": Door(
        "config.data.name",
        "config.data",
        lambda name, options: catalog.load(name, **options),
        ("scenes", {}),
        "data",
    ),
    "method": Door(
        "config.method.name",
        "config.method",
        lambda name, options: classical.build(name, **options),
        ("slic", {"regions": 4}),
        "method",
    ),
}


@pytest.fixture(autouse=True)
def _where_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "my_doors.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield
    sys.modules.pop("my_doors", None)


@pytest.fixture(params=DOORS)
def door(request) -> Door:
    return DOORS[request.param]


def refused(door: Door, name: str, options: dict) -> str:
    """The error's text, without the key that it must name."""
    with pytest.raises(InputError) as caught:
        door.build(name, options)
    text = str(caught.value)
    assert "\n" not in text
    key, _, rest = text.partition(": ")
    assert key in (door.key, door.options_key)
    return rest


def test_a_name_of_ours_and_one_of_a_module_nearby_are_built(door):
    door.build(*door.ours)
    door.build(f"my_doors:{door.theirs}", {"width": 3})


def test_an_unknown_name_lists_ours_and_the_near_miss(door):
    name, options = door.ours
    text = refused(door, f"{name}x", options)
    assert text.startswith(f"unknown '{name}x'; known: ")
    assert text.endswith(f', or module:Name. Did you mean "{name}"?')


def test_an_unknown_option_lists_those_that_are_known_and_the_near_miss(door):
    text = refused(door, f"my_doors:{door.theirs}", {"width": 3, "widht": 3})
    assert "my_doors:" in text
    assert " no 'widht'; options: " in text
    assert text.endswith('. Did you mean "width"?')
    name, options = door.ours
    assert " no 'no_such'; options: " in refused(door, name, options | {"no_such": 1})


def test_a_missing_option_is_named(door):
    text = refused(door, f"my_doors:{door.theirs}", {})
    assert text.startswith(f"my_doors:{door.theirs} needs width; options: ")


def test_a_module_or_a_name_in_it_that_is_missing_is_told(door):
    name = "no_such_module:Thing"
    assert refused(door, name, {}) == f"cannot import {name!r}: No module named 'no_such_module'."
    text = refused(door, f"my_doors:{door.theirs}s", {})
    assert text.endswith(f"my_doors has no '{door.theirs}s'. Did you mean \"{door.theirs}\"?")


def theirs(name: str, **options):
    door = DOORS[name]
    return door.build(f"my_doors:{door.theirs}", {"width": 3} | options)


def test_a_users_network_has_their_stages_and_scores():
    assert shapes().shape == (1, 2, 3, 5)
    assert shapes(aux={"name": "my_doors:Head", "width": 2}).shape == (1, 2, 3, 5)


@pytest.mark.parametrize("name", ["loss", "added loss"])
def test_a_users_loss_is_summed_and_counted_as_ours_are(name):
    label = jnp.asarray(made.random_label((13, 18)))
    scores = made.random_scores((4, 5))
    total, count = losses.build(class_weights=None).total((scores,), label)
    got, got_count = theirs(name).total((scores,), label)
    assert got == pytest.approx(float(total) * (3 if name == "loss" else 1 + 0.5 * 3), rel=1e-5)
    assert got_count == count == (np.asarray(label) != VOID).sum()


def test_a_users_optimiser_has_the_settings_that_it_names_and_multipliers_of_parts():
    build = functools.partial(
        optim_test.build, name="my_doors:optimiser", options={"width": 2.0}, momentum=0.9
    )
    plain, parts = optim_test.walk(build(), 1), optim_test.walk(build(parts=optim_test.PARTS), 1)
    for start, end, twice, rate in zip(
        optim_test.leaves(0), plain, parts, (2, 1, 20, 10), strict=True
    ):
        np.testing.assert_allclose(np.abs(end - start), 0.1 * 2, rtol=1e-4)  # signs alone
        np.testing.assert_allclose(twice - start, rate * (end - start), rtol=1e-4)


def test_a_users_schedule_starts_after_warm_up():
    rate = theirs("schedule", width=0.5).schedule
    assert [float(rate(step)) for step in (0, 50, 100, 200)] == pytest.approx(
        [0.1, 0.075, 0.05, 0.05]
    )
    late = optim_test.build(
        schedule="my_doors:schedule", options={"width": 0.5}, warmup_steps=20
    ).schedule
    assert float(late(20)) == pytest.approx(0.1)


def test_a_users_augmentation_is_mapped_over_the_batch():
    batch = tiny.batch(0)
    image, label = augment.batch(jax.random.key(0), batch, theirs("augmentation"), (0, 0, 0))
    np.testing.assert_array_equal(image, 3.0 * batch["image"][:, :8, :12])
    np.testing.assert_array_equal(label, batch["label"][:, :8, :12])


def test_a_users_data_set_has_the_errors_of_ours():
    dataset = theirs("data set")
    image, label = dataset.splits["train"][1]
    assert (image[label == 1] == 100).all()
    with pytest.raises(InputError, match=r"No split 'trian'; present are train\. Did .*\"train\""):
        dataset.splits["trian"]
    regions = catalog.load_regions("my_doors:data", width=3).splits["train"]
    np.testing.assert_array_equal(regions[1][1][0], label)


def test_a_users_method_labels_an_image():
    labels = jax.jit(theirs("method"))(np.full((2, 3, 3), 7, np.uint8))
    np.testing.assert_array_equal(labels, np.full((2, 3), 2))

"""What `mesh.space` splits: the compiled programs of every network, on 2 x 4 devices and on 2 x 1.

Compiled as accelerators get them: a CPU's own forms of convolutions are left out.
"""

import re

import jax
import pytest

from segjax import crf, sharding
from segjax.evaluation import fusion, views
from segjax.evaluation import steps as evaluation_steps
from segjax.network import Network
from segjax.training import assembly
from tests import tiny
from tests.models.zoo import NETWORKS

SIZE = (512, 256)
QUICK = ("bilinear", "segnet")

WHOLE = {
    "crf_rnn": "the lattice of a CRF is built on all devices of an image; they split its channels",
}
"""Networks with a part that is not split, and why; `docs/pods.md` lists them."""


def networks(quick: tuple[str, ...]) -> list:
    names = [name for name in NETWORKS if name not in WHOLE]
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(autouse=True)
def as_on_accelerators(monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))


def assembled(name: str, devices: int, space: int) -> tuple[assembly.Training, dict]:
    made = tiny.config(model=NETWORKS[name], mesh__space=space, augment__size=SIZE, optim__parts=())
    training = tiny.assemble(made, devices)
    return training, sharding.batch_shapes(training.mesh, tiny.batch(0, 2, SIZE))


def train(name: str, devices: int, space: int) -> jax.stages.Compiled:
    training, batch = assembled(name, devices, space)
    return training.step.lower(training.state_shapes(), batch).compile()


def evaluate(name: str, devices: int, space: int) -> jax.stages.Compiled:
    training, batch = assembled(name, devices, space)
    state = training.state_shapes()
    network = Network(state.params, state.batch_stats, training.model)
    return tiny.look(training).lower(network, batch).compile()


def assert_a_quarter(name: str, compile_step, copies: int) -> None:
    """Of the operations, and of the memory beside so many copies of the parameters."""
    one, four = compile_step(name, 2, 1), compile_step(name, 8, 4)
    flops = [compiled.cost_analysis()["flops"] for compiled in (one, four)]
    assert flops[1] <= 1.35 * flops[0] / 4
    params, _ = assembled(name, 2, 1)[0].model.shapes()
    fixed = 4 * tiny.count(params)
    memory = [compiled.memory_analysis().temp_size_in_bytes for compiled in (one, four)]
    assert fixed < memory[0] / 10
    assert memory[1] - copies * fixed <= 1.45 * (memory[0] - copies * fixed) / 4
    assert four.as_text().count(" collective-permute(") > one.as_text().count("collective-permute")


@pytest.mark.parametrize("name", networks(QUICK))
def test_a_device_trains_a_quarter_of_an_image_that_four_share(name):
    assert_a_quarter(name, train, copies=2)


@pytest.mark.parametrize("name", networks((*QUICK, "fcn8s", "deeplab_v2")))
def test_a_device_evaluates_a_quarter_of_an_image_that_four_share(name):
    assert_a_quarter(name, evaluate, copies=0)


def test_a_crf_behind_a_network_is_split_by_its_channels():
    """Five classes are padded to eight channels; the tables of a lattice of C have C + 1 rows."""
    refinement = crf.Refinement(crf.build("deeplab_v1"), capacity=1000, filled=False)

    def table_widths(devices: int, space: int) -> set[str]:
        made = tiny.config(model=NETWORKS["bilinear"], mesh__space=space)
        training = tiny.assemble(made, devices)
        state = training.state_shapes()
        batch = sharding.batch_shapes(training.mesh, tiny.batch(0, 1))
        network = Network(state.params, state.batch_stats, training.model)
        look = tiny.look(training, crf=refinement).lower(network, batch)
        return {*re.findall(r"f32\[(?:1,)?1001,(\d+)\]", look.compile().as_text())}

    assert "8" in table_widths(1, 1)
    assert "2" in (split := table_widths(4, 4))
    assert "8" not in split


def test_a_view_of_an_image_is_split_over_the_devices_that_share_it():
    training = tiny.assemble(tiny.config(model=NETWORKS["segnet"]), 1)
    state = training.state_shapes()
    network = Network(state.params, state.batch_stats, training.model)

    def flops(devices: int, space: int) -> float:
        look = fusion.MultiView(
            training.model,
            evaluation_steps.Judge(()),
            views.parse("deeplab_v3_ms_flip"),
            mean=(0.0, 0.0, 0.0),
            batch_size=1,
            devices=jax.devices()[:devices],
            space=space,
        )
        placed = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=look._whole), network
        )
        tiles = jax.ShapeDtypeStruct((1, 128, 128, 3), "float32", sharding=look._split)
        return look._see.lower(placed, tiles).compile().cost_analysis()["flops"]

    assert flops(4, 4) <= 1.35 * flops(1, 1) / 4

"""States in layouts of the compiler's choosing; XLA:CPU chooses plain ones, so tests choose."""

import gc

import jax
import numpy as np
import pytest
from jax.experimental.layout import Format, Layout

from segjax import sharding
from segjax.runs import event_log
from segjax.training import layouts, stepper
from tests import programs, tiny


@pytest.fixture
def gpu(monkeypatch):
    """A compiler that wants every array of a state the other way round."""
    shapes = tiny.assemble(tiny.short_config(), 1).state_shapes()

    def wanted(mesh):
        place = sharding.replicated(mesh)
        return jax.tree.map(lambda x: Format(Layout(tuple(range(x.ndim))[::-1]), place), shapes)

    monkeypatch.setattr(layouts, "wanted", wanted)


def order(ts) -> tuple[int, ...]:
    """The axes of a kernel in the order of memory."""
    return ts.params["head"]["score_pool3"]["kernel"].format.layout.major_to_minor


def test_a_step_keeps_the_layouts_and_changes_no_number(gpu):
    training = tiny.assemble(tiny.short_config(), 1)
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    plain, scalars = training.step(tiny.awake_state(training), batch)
    program = training.program.lower(training.state_shapes(), batch).compile()
    ts = layouts.laid_out(tiny.awake_state(training), program)
    assert order(ts) == (3, 2, 1, 0)
    ts, found = program(ts, batch)
    assert order(ts) == (3, 2, 1, 0)
    tiny.assert_close(found, scalars)
    tiny.assert_close(ts.params, plain.params)
    back = layouts.plain(ts)
    assert order(back) == (0, 1, 2, 3)
    tiny.assert_same_bits(back, ts)
    assert layouts.plain(back) is back


def test_a_run_with_other_layouts_saves_and_evaluates(gpu, tmp_path, monkeypatch):
    """Its checkpoints are those of a run without."""
    config = tiny.short_config(total_steps=4)
    programs.train_plainly(config, tmp_path / "turned")
    monkeypatch.setattr(layouts, "wanted", lambda mesh: None)
    programs.train_plainly(config, tmp_path / "plain")
    got, expected = (programs.final(tmp_path / name) for name in ("turned", "plain"))
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)
    events = [event_log.read(tmp_path / name) for name in ("turned", "plain")]
    for ours, theirs in zip(*events, strict=True):
        assert ours.get("eval/miou") == pytest.approx(theirs.get("eval/miou"), abs=1e-6)


def test_a_run_holds_one_state_while_it_trains(gpu, tmp_path, monkeypatch):
    seen = []

    def train(self, ts, batches, step):
        gc.collect()
        kernel = ts.params["head"]["score_pool3"]["kernel"]
        alike = [a for a in jax.live_arrays() if a.shape == kernel.shape and id(a) not in before]
        seen.append((len(alike), sum(x.shape == kernel.shape for x in jax.tree.leaves(ts))))

    monkeypatch.setattr(stepper.Stepper, "train", train)
    held = jax.live_arrays()  # so that no id is used again
    before = {id(a) for a in held}
    programs.train_plainly(tiny.short_config(total_steps=2), tmp_path)
    ((there, of_state),) = seen
    assert there == of_state


def test_a_copy_in_another_layout_is_traced_once(gpu, monkeypatch):
    traced = []
    monkeypatch.setattr(layouts, "_itself", lambda ts: traced.append(1) or ts)
    training = tiny.assemble(tiny.short_config(), 1)
    batch = sharding.put_batch(training.mesh, tiny.batch(0))
    program = training.program.lower(training.state_shapes(), batch).compile()
    ts = layouts.laid_out(tiny.awake_state(training), program)
    traced.clear()
    for _ in range(3):
        layouts.plain(ts)
    assert len(traced) <= 1

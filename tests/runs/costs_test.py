import contextlib

import pytest

from segjax.runs import costs


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_meter_divides_by_the_time_that_counts():
    clock = Clock()
    meter = costs.Meter(clock=clock)
    for _ in range(4):
        with meter.waiting():
            clock.now += 0.5
        clock.now += 1.5
        meter.step(images=8)
    with meter.paused():
        clock.now += 1000
        with meter.paused(), meter.waiting():
            clock.now += 1000
    rates = meter.read_and_reset()
    assert rates == {
        "train/images_per_s": pytest.approx(32 / 8),
        "train/step_ms": pytest.approx(2000),
        "train/data_wait": pytest.approx(0.25),
    }


def test_the_share_of_a_chip_s_rate_counts_the_operations_of_steps_alone():
    clock = Clock()
    meter = costs.Meter(operations=30.0, peak=20.0, clock=clock)
    for _ in range(4):
        clock.now += 5
        meter.step(images=8)
    with meter.paused():
        clock.now += 1000
    assert meter.read_and_reset()["train/mfu"] == pytest.approx(4 * 30 / 20 / 20)


class Device:
    """One that tells its memory."""

    def __init__(self, stats: dict[str, int] | None):
        self.stats = stats

    def memory_stats(self) -> dict[str, int] | None:
        return self.stats


def test_the_peak_of_memory_is_that_of_the_fullest_device_that_tells():
    told = [Device({"peak_bytes_in_use": gib * 2**30}) for gib in (3, 5)]
    assert costs.peak_memory([Device(None), *told]) == {"train/peak_gib": 5}
    assert costs.peak_memory([Device(None), Device({"bytes_limit": 1})]) == {}


def test_the_meter_starts_anew_after_it_was_read():
    clock = Clock()
    meter = costs.Meter(clock=clock)
    clock.now += 7
    meter.step(images=1)
    meter.read_and_reset()
    assert meter.read_and_reset() == {}
    clock.now += 2
    meter.step(images=6)
    assert meter.read_and_reset()["train/images_per_s"] == pytest.approx(3)


def test_the_meter_counts_again_after_an_evaluation_that_failed():
    clock = Clock()
    meter = costs.Meter(clock=clock)
    with contextlib.suppress(KeyError), meter.paused():
        clock.now += 5
        raise KeyError
    clock.now += 2
    meter.step(images=4)
    assert meter.read_and_reset()["train/images_per_s"] == pytest.approx(2)

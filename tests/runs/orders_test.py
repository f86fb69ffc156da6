"""What the process does when it is told to stop."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from segjax.runs import orders
from tests import programs

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture(autouse=True)
def heard():
    with programs.heard():
        yield


@pytest.mark.parametrize("number", SIGNALS)
def test_an_order_is_remembered_while_there_is_work_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with orders.Orders() as order:
        order.work_begins()
        assert not order.given
        signal.raise_signal(number)
        assert order.given
        signal.raise_signal(number)  # at once: one order, that a launcher has forwarded
    assert signal.getsignal(number) is before


def test_what_was_asked_for_decides_how_the_program_ends():
    def asked(number):
        with orders.obeyed() as order:
            order.work_begins()
            signal.raise_signal(number)

    asked(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        asked(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        asked(signal.SIGHUP)
    assert ended.value.code == 129


def test_before_there_is_work_an_order_ends_the_start():
    done = []
    with orders.obeyed():
        signal.raise_signal(signal.SIGTERM)
        done.append("more")
    assert not done


def test_an_order_that_a_library_swallowed_is_not_lost():
    with orders.obeyed() as order:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            assert order.given
        order.work_begins()
        raise AssertionError("the work has begun")


def test_an_order_to_an_outer_run_is_one_to_the_inner():
    """main listens from the start, and the loop within: an order in between was forgotten."""
    with orders.obeyed():
        with contextlib.suppress(orders.Asked):  # as a library may
            signal.raise_signal(signal.SIGTERM)
        with orders.Orders() as inner:
            assert inner.given
            with pytest.raises(orders.Asked):
                inner.work_begins()


def test_an_order_in_a_callback_that_cannot_raise_is_given_again(capfd):
    class Dropped:
        pass

    done = []
    with orders.obeyed():
        dropped = Dropped()
        weakref.finalize(dropped, int)
        reference = weakref.ref(dropped, lambda _: signal.raise_signal(signal.SIGTERM))
        del dropped
        done.append("after the callback")
        time.sleep(5)
        done.append("too late")
    assert reference() is None
    assert done == ["after the callback"]
    assert capfd.readouterr().err == ""


def test_an_order_between_the_run_and_the_end_of_the_program_finds_nothing_to_stop():
    with orders.obeyed() as outer:
        with orders.obeyed() as inner:
            inner.work_begins()
        signal.raise_signal(signal.SIGTERM)
        assert outer.given
    before = signal.getsignal(signal.SIGTERM)
    try:
        with orders.obeyed(ends_program=True) as last:
            last.work_begins()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_the_process_was_told_to_ignore_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orders.Orders() as order:
            order.work_begins()
            signal.raise_signal(signal.SIGHUP)
            assert not order.given
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_order_ends_the_process_at_once():
    program = (
        "import signal, time\n"
        "from segjax.runs import orders\n"
        "now = [0.0]\n"
        "with orders.Orders(clock=lambda: now[0]) as order:\n"
        "    order.work_begins()\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('saving', flush=True)\n"
        "    now[0] = 2.0\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=programs.ROOT, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout == "saving\n"
    assert done.returncode == -signal.SIGTERM


def test_in_another_thread_no_signal_is_listened_to():
    """Python delivers them to the main thread alone; a notebook may train elsewhere."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def train():
        with orders.Orders() as order:
            order.work_begins()
            seen.append((order.given, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, before)]

import io

from segjax.runs import progress


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_left_counts_this_start_without_its_first_step():
    clock, stream = Clock(), Terminal()
    line = progress.ProgressLine("step", 1000, clock=clock, stream=stream)
    clock.now += 500  # compilation
    line.show(41, "loss 0.53")
    clock.now += 50
    line.show(51, "loss 0.52")
    line.close()
    first, second = stream.getvalue().split("\r")[1:]
    assert first.startswith("step 41/1000 4% | -:--:-- left | loss 0.53")
    assert second.startswith("step 51/1000 5% | 1:19:05 left | loss 0.52")  # 949 steps of 5 s
    assert second.endswith("\n")


def test_a_line_for_a_terminal_does_not_wrap(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    line = progress.ProgressLine("step", 100, stream=stream)
    line.show(1, "x" * 200)
    line.close()
    assert len(stream.getvalue().strip("\r\n").removesuffix("\x1b[K")) == 39


def test_a_log_file_gets_a_line_every_ten_seconds_and_the_last():
    clock, stream = Clock(), io.StringIO()
    line = progress.ProgressLine("step", 100, clock=clock, stream=stream)
    for step in range(1, 101):
        line.show(step)
        clock.now += 0.3
    line.close()
    lines = stream.getvalue().splitlines()
    assert [int(line.split("/")[0].removeprefix("step ")) for line in lines] == [1, 35, 69, 100]
    assert lines[-1] == "step 100/100 100% | 0:00:00 left"
    assert "\r" not in stream.getvalue()

"""The longest operations of segjax's training step.

    python -m experiments.benchmarks.throughput.profile

Takes the flags of `bench`; writes profile-NET-DEVICE.json and the page.
"""

import collections
import pathlib
import re
import tempfile

import jax

from experiments.benchmarks.throughput import bench, report, sides
from experiments.shared import pages
from segjax import files

LONGEST = 20
_OPERATION = re.compile(r"^[a-z_\-]+[a-z_0-9\-]*(\.\d+)*$")  # the runtime's have capitals


def main() -> None:
    """Traces one step."""
    given = bench.arguments()
    ours = sides.Segjax(given.setting, sides.Torch(given.setting, "cpu").arrays())
    total, found = longest(ours)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    command = f"python -m experiments.benchmarks.throughput.profile {given.text}".strip()
    result = pages.circumstances(command, bench.hardware()) | {
        "net": given.setting.name,
        "total_ms": total,
        "operations": found[:LONGEST],
    }
    files.write_json(bench.FOLDER / f"profile-{given.setting.name}-{device}.json", result)
    report.write(bench.FOLDER)


def longest(ours: sides.Segjax) -> tuple[float, list[dict]]:
    """Milliseconds of all operations of a training step, and the operations, longest first."""
    program = {
        name: (result, source)
        for name, result, source in re.findall(
            r"%([\w.\-]+) = \(?([a-z0-9]+\[[0-9,]*\])[^\n]*?(?:op_name=\"([^\"]*)\"|\n)",
            ours.step.as_text(),
        )
    }
    ours.train(2)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            ours.train(1)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        durations, calls = operations(jax.profiler.ProfileData.from_file(str(path)))
    found = [
        {
            "name": name,
            "ms": ms,
            "calls": calls[name],
            "result": program.get(name, ("", ""))[0],
            "source": "/".join(program.get(name, ("", ""))[1].split("/")[-3:]),
        }
        for name, ms in durations.most_common()
    ]
    return sum(durations.values()), found


def operations(trace) -> tuple[collections.Counter, collections.Counter]:
    """Milliseconds and calls by operation: of the device's streams, or of the CPU's threads.

    A `while` is left out: its operations are counted themselves.
    """
    planes = [plane for plane in trace.planes if plane.name.startswith("/device:GPU")]
    streams = [line for plane in planes for line in plane.lines if line.name.startswith("Stream")]
    if not planes:
        host = [plane for plane in trace.planes if plane.name == "/host:CPU"]
        streams = [line for plane in host for line in plane.lines if line.name.startswith("tf_XLA")]
    durations, calls = collections.Counter(), collections.Counter()
    for line in streams:
        for event in line.events:
            name = dict(event.stats).get("hlo_op", event.name)
            if not name.startswith("while") and (planes or _OPERATION.match(name)):
                durations[name] += event.duration_ns / 1e6
                calls[name] += 1
    return durations, calls


if __name__ == "__main__":
    main()

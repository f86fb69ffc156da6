"""What compiled programs move: bytes of their instructions, and collectives, from their text.

`Compiled.cost_analysis()` tells neither on every platform: nothing on GPUs, and no collective.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")

_ROOM = re.compile(r"\b[us]8\[\d*\]")

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "collective-broadcast",
)

_STILL = frozenset(
    (
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
        "partition-id", "replica-id", "iota", "opt-barrier", "while", "conditional", "call",
    )
)  # fmt: skip
"""Instructions that move nothing themselves."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind in a program.

    Attributes:
        kind: one of COLLECTIVES.
        count: how many a run takes.
        bytes: bytes of their results, on a device.
    """

    kind: str
    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What one run of a program moves on a device.

    Attributes:
        bytes: operands and results of all instructions outside of fusions; those in loops as often
            as the loop turns, where the program tells.
        by_kind: instruction, such as "convolution" or "fusion", -> its part of `bytes`.
        collectives: the collectives, by kind.
    """

    bytes: int
    by_kind: Mapping[str, int]
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """A line of a program: name = result kind(rest."""

    name: str
    result: str
    kind: str
    rest: str


def traffic(text: str) -> Traffic:
    """The traffic of a compiled program, from `Compiled.as_text()`."""
    computations = dict(_computations(text))
    moved, counts, sizes = Counter[str](), Counter[str](), Counter[str]()
    runs = _runs(computations)
    for name, times in runs.items():
        instructions = computations[name]
        results = {i.name: i.result for i in instructions}
        for i in instructions:
            kind = i.kind.removesuffix("-start")
            if kind in _STILL or kind.endswith(("-done", "-update")):
                continue
            operands = (results.get(name, "") for name in _operands(i.rest))
            moved[kind] += times * (_result_bytes(i) + sum(map(_bytes, operands)))
    # Compilers fuse some collectives with what computes their operands.
    for name, instructions in computations.items():
        for i in instructions:
            kind = i.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                counts[kind] += runs[name] or 1
                sizes[kind] += (runs[name] or 1) * _result_bytes(i)
    return Traffic(
        sum(moved.values()),
        dict(moved.most_common()),
        tuple(Collective(kind, counts[kind], sizes[kind]) for kind in COLLECTIVES if counts[kind]),
    )


def _computations(text: str) -> Iterator[tuple[str, list[_Instruction]]]:
    """The computations of a program; that of its entry is named ""."""
    name, found = "", list[_Instruction]()
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name, found = "" if head[1] else head[2], []
        elif line.startswith("}"):
            yield name, found
        elif match := _INSTRUCTION.match(line):
            found.append(_Instruction(match[1], match[2], match[3], line[match.end() :]))


def _runs(computations: Mapping[str, list[_Instruction]]) -> Counter[str]:
    """How often each computation outside of fusions runs: that of the entry once."""
    runs = Counter[str]()

    def run(name: str, times: int) -> None:
        runs[name] += times
        for i in computations[name]:
            for called, turns in _called(i):
                if called in computations:
                    run(called, times * turns)

    run("", 1)
    return runs


def _called(i: _Instruction) -> Iterator[tuple[str, int]]:
    if i.kind == "while":
        turns = re.search(r"known_trip_count[^\d]*(\d+)", i.rest)
        if body := re.search(r"body=%?([\w.-]+)", i.rest):
            yield body[1], int(turns[1]) if turns else 1
    elif i.kind == "call":
        if called := re.search(r"to_apply=%?([\w.-]+)", i.rest):
            yield called[1], 1
    elif branches := re.search(r"branch_computations=\{([^}]*)\}", i.rest):
        yield branches[1].split(",")[-1].strip().lstrip("%"), 1


def _operands(rest: str) -> list[str]:
    """The names of an instruction's operands, from what follows its opening bracket."""
    depth = 1
    for end, letter in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return re.findall(r"%([\w.-]+)", rest[:end])
    return []


def _result_bytes(i: _Instruction) -> int:
    """Bytes of a result.

    The start of a pair has its operands beside it: it counts half. Calls of cuDNN and cuBLAS have
    room to work in beside theirs, bytes of which nothing is known: they do not count.
    """
    room = i.kind == "custom-call" and i.result.startswith("(")
    found = _bytes(_ROOM.sub("", i.result) if room else i.result)
    return found // 2 if i.kind.endswith("-start") and i.result.startswith("(") else found


def _bytes(shapes: str) -> int:
    """The bytes of all arrays in a shape's text, such as "(f32[2,3]{1,0}, s32[])"."""
    total = 0
    for dtype, dims in _ARRAY.findall(shapes):
        digits = re.search(r"\d+", dtype)
        bits = _BITS.get(dtype, int(digits[0]) if digits else 0)
        total += bits * math.prod(int(d) for d in dims.split(",") if d)
    return total // 8

"""What compiled programs move: bytes of their instructions, and collectives, from their text.

`Compiled.cost_analysis()` tells neither on every platform: nothing on GPUs, and no collective.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping

_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(")
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

_SLICES = ("slice", "dynamic-slice", "gather")
_SAME = ("bitcast", "reshape")
_EACH = (*_SAME, "convert", "copy", "transpose")


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
            as the loop turns, where the program tells. Of an operand that is only sliced, the
            slices; of a result that is an operand with a part replaced in place, the part. What a
            TPU's program keeps in the memory of its core does not count.
        by_kind: instruction, such as "convolution" or "fusion", -> its part of `bytes`.
        collectives: the collectives, by kind.
    """

    bytes: int
    by_kind: Mapping[str, int]
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """A line of a program: name = result kind(rest."""

    root: bool
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
        instructions = {i.name: i for i in computations[name]}
        for i in instructions.values():
            kind = i.kind.removesuffix("-start")
            if kind not in _STILL and not kind.endswith(("-done", "-update")):
                moved[kind] += times * _moved(i, instructions, computations)
    # Compilers fuse some collectives with what computes their operands.
    for name, found in computations.items():
        for i in found:
            kind = i.kind.removesuffix("-start")
            if kind in COLLECTIVES:
                counts[kind] += runs[name] or 1
                sizes[kind] += (runs[name] or 1) * _sent(i)
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
            parts = (match[2], match[3], match[4], line[match.end() :])
            found.append(_Instruction(bool(match[1]), *parts))


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


def _moved(
    i: _Instruction,
    around: Mapping[str, _Instruction],
    computations: Mapping[str, list[_Instruction]],
) -> int:
    """The bytes that an instruction, one of those `around`, reads and writes."""
    operands = [around.get(name) for name in _operands(i.rest)]
    called = re.search(r"calls=%?([\w.-]+)", i.rest)
    if i.kind != "fusion" or not called or called[1] not in computations:
        read = sum(
            _bytes(operand.result) * _share(i, place, operand)
            for place, operand in enumerate(operands)
            if operand
        )
        return round(read) + _written(i, around, round(read))
    inside = {j.name: j for j in computations[called[1]]}
    places = {int(j.rest.split(")")[0]): j for j in inside.values() if j.kind == "parameter"}
    (root,) = (j for j in inside.values() if j.root)
    results = _operands(root.rest) if root.kind == "tuple" else [root.name]
    read = sum(
        _bytes(operand.result) * _share_inside(places[k], inside)
        for k, operand in enumerate(operands)
        if operand
    )
    return round(read) + sum(_written(inside[name], inside) for name in results)


def _share_inside(i: _Instruction, inside: Mapping[str, _Instruction]) -> float:
    """The share of one of its values that a fusion reads."""
    total = float(i.root)
    for user in inside.values():
        operands = _operands(user.rest)
        if i.name in operands and user.kind in _EACH:
            total += _share_inside(user, inside)
        elif i.name in operands:
            total += _share(user, operands.index(i.name), i)
    return min(total, 1.0)


def _share(user: _Instruction, place: int, operand: _Instruction) -> float:
    """The share of its operand at a place that an instruction reads."""
    if place == 0 and user.kind in _SLICES:
        of, whole = (_bytes(j.result, everywhere=True) for j in (user, operand))
        return min(1.0, of / max(1, whole))
    return 0.0 if place == 0 and user.kind == "dynamic-update-slice" else 1.0


def _written(i: _Instruction, around: Mapping[str, _Instruction], read: int = 0) -> int:
    """The bytes that an instruction writes, beside so many that it reads."""
    while i.kind in _SAME:
        i = around[_operands(i.rest)[0]]
    if i.kind == "dynamic-update-slice":
        part = around.get(_operands(i.rest)[1])
        return _bytes(part.result) if part else 0
    return _result_bytes(i, read)


def _operands(rest: str) -> list[str]:
    """The names of an instruction's operands, from what follows its opening bracket."""
    depth = 1
    for end, letter in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not depth:
            return re.findall(r"%([\w.-]+)", rest[:end])
    return []


def _sent(i: _Instruction) -> int:
    """Bytes of a collective's result; the start of one has its operands beside it."""
    found = _bytes(i.result, everywhere=True)
    return found // 2 if i.kind.endswith("-start") and i.result.startswith("(") else found


def _result_bytes(i: _Instruction, operands: int) -> int:
    """Bytes of a result, beside so many of the operands.

    The result of a start names its operands again. Calls of cuDNN and cuBLAS have room to work in
    beside their results, bytes of which nothing is known: they do not count.
    """
    pair = i.result.startswith("(")
    if i.kind == "custom-call" and pair:
        return _bytes(_ROOM.sub("", i.result))
    return max(0, _bytes(i.result) - (operands if pair and i.kind.endswith("-start") else 0))


def _bytes(shapes: str, *, everywhere: bool = False) -> int:
    """The bytes of all arrays in a shape's text, such as "(f32[2,3]{1,0}, s32[])".

    Args:
        shapes: the text.
        everywhere: whether those count that are not in the device's main memory.
    """
    total = 0
    for dtype, dims, layout in _ARRAY.findall(shapes):
        if "S(" in layout and not everywhere:
            continue
        digits = re.search(r"\d+", dtype)
        bits = _BITS.get(dtype, int(digits[0]) if digits else 0)
        total += bits * math.prod(int(d) for d in dims.split(",") if d)
    return total // 8

"""A disk that is full or read-only at every kind of write, of every verb.

Which writes there are is found by running each verb undisturbed; then the same command runs once
for each kind of file and each error, and again when there is room.
"""

import collections
import dataclasses
import pathlib
import re
import shutil

import cv2

from experiments.faults import runs
from experiments.faults.outcome import Outcome
from segjax.data import catalog
from segjax.runs.progress import ProgressLine

_ERRORS = {"ENOSPC": "a full disk", "EACCES": "a file that may not be written"}
_HIDDEN = r"/\.[0-9a-f]{16}\.tmp$"


@dataclasses.dataclass(frozen=True)
class _Write:
    """The number-th opening of a file whose path matches a pattern."""

    kind: str
    pattern: str
    number: int


@dataclasses.dataclass(frozen=True)
class _Verb:
    """A command; {run}, {other}, {photographs} and {out} are its folders.

    Attributes:
        name: of the verb.
        words: its flags.
        changed: which of the folders it writes to.
    """

    name: str
    words: tuple[str, ...]
    changed: str

    def command(self, folders: dict[str, pathlib.Path]) -> list[str]:
        """The flags with the folders in them."""
        return [word.format(**folders) for word in self.words]


_TRAIN = _Verb("main", (f"--config={runs.RECIPE}", *runs.FLAGS, "--workdir={out}"), "out")
_OTHERS = (
    _Verb("evaluate", ("--workdir={run}", "--protocol=single, flip=True"), "run"),
    _Verb("compare", ("{run}", "{other}", "--output={out}", "--overwrite"), "out"),
    _Verb(
        "predict",
        ("--workdir={run}", "--input={photographs}", "--output={out}", "--overwrite"),
        "out",
    ),
    _Verb("prepare", ("show", "--config=fcn8s:smoke", "--output={out}", "--overwrite"), "out"),
    _Verb("weights", ("export", "--workdir={run}", "--output={out}/w.safetensors"), "out"),
    _Verb("main", ("--config=slic", "--config.eval.limit=4", "--workdir={out}"), "out"),
)


def run(folder: pathlib.Path, count: int) -> list[Outcome]:
    """Tries at most `count` faults, evenly chosen of all that there are."""
    folder.chmod(0o755)  # for those who are not root
    base = {name: folder / name for name in ("run", "other", "photographs", "out")}
    runs.whole(base["run"])
    runs.Child(f"--workdir={base['run']}", verb="evaluate").end()  # what compare reads
    shutil.copytree(base["run"], base["other"])
    _photographs(base["photographs"])
    cases: list[tuple] = []
    for verb in (_TRAIN, *_OTHERS):
        whole = folder / "whole" / str(len(cases))
        writes = _writes_of(verb, base, whole)
        cases += [(verb, write, error, whole) for write in writes for error in _ERRORS]
    whole = folder / "whole" / "0"
    cases += [(limit, phase, number, whole) for phase, number in _MOMENTS for limit in _OF_ALL]
    chosen = [cases[i * len(cases) // count] for i in range(count)] if count < len(cases) else cases
    progress, outcomes = ProgressLine("disk", len(chosen)), list[Outcome]()
    for number, (what, *how) in enumerate(chosen):
        place = folder / "tries" / str(number)
        outcomes.append(
            _tried(what, base, place, *how) if isinstance(what, _Verb) else what(place, *how)
        )
        shutil.rmtree(place)
        progress.show(number + 1)
    return outcomes


def _photographs(folder: pathlib.Path) -> None:
    folder.mkdir()
    source = catalog.load(name="scenes", size=(48, 64)).splits["val"]
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), source[i][0][..., ::-1])


def _folders(base: dict[str, pathlib.Path], place: pathlib.Path) -> dict[str, pathlib.Path]:
    """Folders of a try: copies of those that a verb writes to."""
    place.mkdir(parents=True)
    shutil.copytree(base["run"], place / "run")
    return base | {"run": place / "run", "out": place / "out"}


def _writes_of(verb: _Verb, base: dict[str, pathlib.Path], place: pathlib.Path) -> list[_Write]:
    """The kinds of files that a verb writes; leaves what it writes in `place`."""
    folders = _folders(base, place)
    watch = {"kind": "writes", "folder": str(place)}
    child = runs.Child(*verb.command(folders), verb=verb.name, faults=[watch])
    child.undisturbed()
    moved = {m.words[1]: m.words[2] for m in child.marks if m.words[0] == "moved"}
    seen: collections.Counter[str] = collections.Counter()
    found: dict[str, list[_Write]] = {}
    for mark in child.marks:
        if mark.words[0] != "write":
            continue
        path = mark.words[2]
        pattern = _HIDDEN
        if not re.search(_HIDDEN, path):
            name = re.sub(r"\d+", r"\\d+", re.escape(path.rpartition("/")[2]))
            pattern = f"/{name}$"
        seen[pattern] += 1
        kind = re.sub(r"\d+", "#", _named(moved.get(path, path), place))
        found.setdefault(kind, []).append(_Write(kind, pattern, seen[pattern]))
    return [writes[len(writes) // 2] for writes in found.values()]


def _named(path: str, place: pathlib.Path) -> str:
    """A file as the table names it: below the folders of the try."""
    name = pathlib.Path(path).relative_to(place.resolve()).as_posix()
    return "lock.json" if re.search(_HIDDEN, f"/{name}") else name


def _tried(
    verb: _Verb,
    base: dict[str, pathlib.Path],
    place: pathlib.Path,
    write: _Write,
    error: str,
    whole: pathlib.Path,
) -> Outcome:
    """One error of one write, and the command again."""
    folders = _folders(base, place)
    fault = {"kind": "writes", "folder": str(place), "error": error}
    fault |= {"pattern": write.pattern, "number": write.number}
    child = runs.Child(*verb.command(folders), verb=verb.name, faults=[fault])
    status, said = child.end()
    name, case = f"{_ERRORS[error]} ({verb.name})", write.kind
    if not child.faults():
        raise RuntimeError(f"{name}, {case}: the fault did not occur.\n{said[-2000:]}")
    told = _told(name, case, status, said)
    if told is not None:
        return told
    child = runs.Child(*verb.command(folders), verb=verb.name)
    return _judged(verb, name, case, place, whole, *child.end(), first=said)


def _told(fault: str, case: str, status: int | None, said: str) -> Outcome | None:
    """What is wrong with the end of a command that could not write; None if nothing is."""
    if status == 0:
        return None  # it did without the file, which the next start tells
    if runs.refusal(status, said) is None:
        return Outcome(fault, case, "traceback", f"{status}: {said[-700:]}")
    return None


def _judged(
    verb: _Verb,
    fault: str,
    case: str,
    place: pathlib.Path,
    whole: pathlib.Path,
    status: int | None,
    said: str,
    *,
    first: str,
) -> Outcome:
    """Whether the command that was run again has left what it leaves undisturbed."""
    if verb == _TRAIN:
        return runs.judged(fault, case, place / "out", whole / "out", status, said)
    if status != 0:
        return Outcome(fault, case, "lost", f"again: {status}: {said[-500:]}")
    # Results name their folders.
    a, b = (
        {
            name: content.replace(str(folder).encode(), b"")
            if isinstance(content, bytes)
            else content
            for name, content in runs.files_of(folder / verb.changed).items()
        }
        for folder in (place, whole)
    )
    gone, other = sorted(b.keys() - a.keys()), sorted(k for k in a if a[k] != b.get(k))
    if gone or other:
        verdict = "lost" if gone else "silent"
        return Outcome(fault, case, verdict, f"gone: {gone}; other: {other}; {first[-200:]}")
    return Outcome(fault, case, "survived", first.strip().rpartition("\n")[2][:300])


_MOMENTS = (("a save", 1), ("a save", 4), ("an evaluation", 2), ("drawing", 1), ("the end", 1))


def _full(place: pathlib.Path, phase: str, number: int, whole: pathlib.Path) -> Outcome:
    """No file may grow beyond 2000 bytes, C++ code or Python."""
    limit = {"kind": "limit", "phase": phase, "count": number, "size": 2000}
    return _of_all(place, f"a full disk from {phase} on", limit, number, whole)


def _read_only(place: pathlib.Path, phase: str, number: int, whole: pathlib.Path) -> Outcome:
    """The run folder may not be written to any more, and its user is not root."""
    fault = {"kind": "read_only", "phase": phase, "count": number, "folder": str(place / "out")}
    return _of_all(place, f"a read-only folder from {phase} on", fault, number, whole)


_OF_ALL = (_full, _read_only)


def _of_all(
    place: pathlib.Path, name: str, fault: dict, number: int, whole: pathlib.Path
) -> Outcome:
    workdir, case = place / "out", f"{number}. time"
    place.mkdir(parents=True)
    child = runs.train(workdir, faults=[fault])
    status, said = child.end()
    for path in [workdir, *workdir.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not child.faults():
        raise RuntimeError(f"{name}: the fault did not occur.\n{said[-2000:]}")
    told = _told(name, case, status, said)
    if told is not None:
        return told
    return runs.judged(name, case, workdir, whole / "out", *runs.train(workdir).end())

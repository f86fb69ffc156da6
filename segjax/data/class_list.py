"""`classes.txt`: the class names and raw ids of a user's data set."""

import re
from pathlib import Path

from segjax.data.spec import VOID, Color, DatasetSpec, hls_palette
from segjax.errors import InputError


def read(path: Path) -> DatasetSpec:
    """The spec that a `classes.txt` describes, named after its folder.

    Each line is one class, `[raw id] name [R G B]`. A name may contain spaces, `#` starts a comment
    and empty lines are ignored. Either every line starts with its raw id, the number stored in the
    masks, or no line does and the ids count from 0. Repeat a name to give a class several ids. The
    name `void` makes its ids VOID; 255 is VOID unless it is listed. Masks may be RGB if every line
    has a colour and no two classes share one. A binary data set, for example, is

        0    background
        255  crack  220 20 60

    Commas, semicolons, colons and tabs may stand around the numbers, as in `0,background` and
    `crack;220;20;60`. A line `name:R,G,B:parts:actions` is one of CVAT's labelmap.txt.

    Raises:
        InputError: naming the file and the number of a line that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}).") from None
    entries: list[tuple[int, str, Color | None]] = []
    numbered = None
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        where = f"{path}:{number}"
        raw, name, color = _fields(text, where)
        if numbered not in (None, raw is not None):
            raise InputError(f"{where}: give a raw id before every class name or before none.")
        numbered = raw is not None
        entries.append((len(entries) if raw is None else raw, name, color))
        if entries[-1][0] > 255:
            raise InputError(f"{where}: raw id {entries[-1][0]}; 0 to 255 are allowed.")
        if entries[-1][0] in [raw for raw, _, _ in entries[:-1]]:
            raise InputError(f"{where}: an earlier line lists raw id {entries[-1][0]}, too.")
    return _spec_of_entries(path, entries)


_GAP = r"\s*[,;:\s]\s*"  # between the fields of a line
_ID = re.compile(rf"(\d+)(?:{_GAP}|$)")
_COLOR = re.compile(rf"(?:^|{_GAP})(\d+){_GAP}(\d+){_GAP}(\d+)$")
# "car 64 0" and "car,3" are no names; "level 2" is one, and a number alone is none.
_LEFT_OVER = re.compile(rf"(?:^|\d{_GAP}|\s*[,;:]\s*)\d+$")
# A number or a mark where the name should begin: "1. car", "0-3 car", "-1 plate", "0|car", JSON.
_NO_NAME = re.compile(r"-?\d+\s*[.|=)]|-\d|\d+-\d+\s|[\"']\d+[\"']|[{\[=|)]")
_CVAT = re.compile(r"([^:]+):(\d+,\d+,\d+)?:[^:]*:[^:]*$")
_TITLES = {"id", "name", "class", "label", "index", "value", "color", "r", "g", "b"} | {
    "red", "green", "blue", "label_name", "class_name", "color_rgb", "colour",
}  # fmt: skip


def _fields(text: str, where: str) -> tuple[int | None, str, Color | None]:
    """Raw id, name and colour in a line, such as "7 traffic sign 192 128 128"."""
    raw, color = None, None
    if line := _CVAT.match(text):
        text = f"{line[1]} {line[2] or ''}".strip()
    elif start := _ID.match(text):
        raw, text = int(start[1]), text[start.end() :]
    if end := _COLOR.search(text):
        red, green, blue = map(int, end.groups())
        color, text = (red, green, blue), text[: end.start()]
    name = " ".join(text.strip(" \t,;:").split())
    if not name or _NO_NAME.match(name) or _LEFT_OVER.search(name) or max(color or (0,)) > 255:
        raise InputError(f"{where}: a line is `[raw id] name [R G B]`, each colour value 0 to 255.")
    words = [word.strip().lower() for word in re.split(_GAP, name)]
    if len(words) > 1 and set(words) <= _TITLES:
        raise InputError(
            f"{where}: {name!r} is a line of titles; a line is `[raw id] name [R G B]`, in this "
            "order: remove it."
        )
    return raw, "void" if name.lower() == "void" else name, color


def _spec_of_entries(path: Path, entries: list[tuple[int, str, Color | None]]) -> DatasetSpec:
    names = list(dict.fromkeys(name for _, name, _ in entries if name != "void"))
    if not names:
        raise InputError(f"{path}: names no class.")
    given = {name: color for _, name, color in reversed(entries) if color}
    table = [(raw, VOID if name == "void" else names.index(name)) for raw, name, _ in entries]
    if 255 not in dict(table):
        table.append((255, VOID))
    palette = hls_palette(len(names))
    complete = all(color for _, _, color in entries)
    if complete and len({color for _, _, color in entries}) < len(entries):
        # Ids of one class may share a colour; a colour shared by two classes is ambiguous.
        classes_of = {color: {n for _, n, c in entries if c == color} for _, _, color in entries}
        complete = all(len(classes) == 1 for classes in classes_of.values())
    first_id = {color: raw for raw, _, color in reversed(entries) if color}
    return DatasetSpec(
        name=path.absolute().parent.name,
        classes=tuple(names),
        palette=tuple(given.get(name, palette[i]) for i, name in enumerate(names)),
        table=tuple(table),
        colors=tuple(first_id.items()) if complete else (),
        void_color=given.get("void", (0, 0, 0)),
    )

"""`classes.txt`: the class names and raw ids of a user's data set."""

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
        words = line.split("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        has_id = words[0].isdecimal()
        if numbered not in (None, has_id):
            raise InputError(f"{where}: give a raw id before every class name or before none.")
        numbered = has_id
        entries.append((int(words.pop(0)) if has_id else len(entries), *_name(words, where)))
        if entries[-1][0] > 255:
            raise InputError(f"{where}: raw id {entries[-1][0]}; 0 to 255 are allowed.")
        if entries[-1][0] in [raw for raw, _, _ in entries[:-1]]:
            raise InputError(f"{where}: an earlier line lists raw id {entries[-1][0]}, too.")
    return _spec_of_entries(path, entries)


def _name(words: list[str], where: str) -> tuple[str, Color | None]:
    """Name and colour from the words after the id, such as "traffic sign 192 128 128"."""
    is_number = [word.isdecimal() for word in words]
    color = None
    if len(words) >= 3 and all(is_number[-3:]):
        red, green, blue = (int(word) for word in words[-3:])
        color = red, green, blue
        words, is_number = words[:-3], is_number[:-3]
    # "car 64 0" is an incomplete colour; "level 2" is a name.
    if not words or all(is_number[-2:]) or max(color or (0,)) > 255:
        raise InputError(f"{where}: a line is `[raw id] name [R G B]`, each colour value 0 to 255.")
    name = " ".join(words)
    return "void" if name.lower() == "void" else name, color


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

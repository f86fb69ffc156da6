"""Markdown pages as tests read them: blocks of code, commands, links, headings."""

import dataclasses
import re
from collections.abc import Iterator

from tests import programs

PAGES = sorted(
    str(path.relative_to(programs.ROOT))
    for path in [*programs.ROOT.glob("*.md"), *programs.ROOT.glob("docs/*.md")]
)
"""Paths in the repository."""

_BLOCK = re.compile(
    r"(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: as the fence says.
        code: its lines.
        note: the comment right before the fence, which says why a block is not run; "".
    """

    language: str
    code: str
    note: str

    @property
    def file(self) -> str:
        """The name of the file that the block is: its first line is `# name.py`. "" for none."""
        name = re.match(r"# (\w+\.py)\n", self.code)
        return name[1] if name else ""


def read(page: str) -> str:
    """The text of a page."""
    return (programs.ROOT / page).read_text()


def blocks(page: str, language: str) -> list[Block]:
    """The blocks of a page in one language."""
    found = [
        Block(block["language"], block["code"], block["note"] or "")
        for block in _BLOCK.finditer(read(page))
    ]
    return [block for block in found if block.language == language]


def files(page: str) -> dict[str, str]:
    """Name -> content of the files that the blocks of a page are."""
    return {block.file: block.code for block in blocks(page, "python") if block.file}


def prose(page: str) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", read(page))


def commands(page: str) -> Iterator[str]:
    """The command lines of a page: those of bash blocks, and programs of segjax in the text."""
    for block in blocks(page, "bash"):
        for line in block.code.replace("\\\n", " ").splitlines():
            parts = [part.strip() for part in re.split(r"&&|;", re.sub(r" [#>] .*", "", line))]
            yield from filter(None, parts)
    for code in re.findall(r"`([^`]+)`", prose(page)):
        if re.match(r"(segjax|python -m segjax\.\w+) ", code):
            yield re.sub(r" > .*", "", " ".join(code.split()))


def links(page: str) -> list[str]:
    """The relative links and pictures of a page."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not re.match(r"\w+:", link)]


def anchors(page: str) -> set[str]:
    """What links into a page may name: its headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }

"""Parts of the pages of all rooms: circumstances, commands, tables, pictures."""

import datetime
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from segjax import files
from segjax.runs import run_folder

ROOT = pathlib.Path(__file__).parents[2]


def commit(folder: str | pathlib.Path = ROOT) -> str:
    """The commit that a checkout stands at, in short."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def circumstances(command: str, hardware: str, **versions: str) -> dict[str, Any]:
    """The facts that a measurement stores beside its numbers.

    Args:
        command: that repeats the measurement.
        hardware: in words.
        **versions: of software beside segjax's own.
    """
    return {
        "command": command,
        "hardware": hardware,
        "date": str(datetime.date.today()),
        "commit": commit(),
        "versions": run_folder.versions() | versions,
    }


def software(versions: Mapping[str, str], *, device: bool = True) -> str:
    """Versions as a phrase, with the kind of device or without."""
    left_out = ("devices",) if device else ("device", "devices")
    return ", ".join(f"{name} {text}" for name, text in versions.items() if name not in left_out)


def block(*commands: str) -> str:
    """A block of shell commands."""
    return "```bash\n" + "\n".join(commands) + "\n```"


def made(result: Mapping[str, Any], now: str) -> str:
    """The sentence that says where a measurement comes from, or "" where nothing is known.

    Args:
        result: a stored measurement. `command` made it, `commit` was checked out then;
            measurements older than that key have `recorded_in`, the commit that brought them.
        now: the command that repeats it, as the page shows it.
    """
    if "commit" in result:
        start, verb = f"Made at commit {result['commit']}", ""
    elif "recorded_in" in result:
        start, verb = f"Recorded in commit {result['recorded_in']}", ", made"
    else:
        return ""
    then = result.get("command", now).strip()
    return f"{start}." if then == now.strip() else f"{start}{verb} by `{then}`."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def write(path: pathlib.Path, parts: Sequence[str]) -> None:
    """Writes a page from its paragraphs; empty ones are left out."""
    files.write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def write_jpeg(path: pathlib.Path, picture: np.ndarray, *, quality: int = 85) -> None:
    """Writes a picture, uint8 [H, W, 3] in RGB."""
    encoded = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    files.write(path, encoded.tobytes())

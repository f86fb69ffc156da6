"""Every classical method beside the libraries, on BSDS500, in one run: numbers and a page.

    SEGJAX_DATA=... python -m experiments.benchmarks.classical.bench --images=100 --rounds=3 \
        --hardware="2 cores of an AMD EPYC"

Wants scikit-image, scikit-learn, pyamg, PyMaxflow and, built from source, fast-slic; what is not
there is left out. Writes results.json and results.md beside this file.
"""

import argparse
import datetime
import importlib.metadata
import json
import pathlib
import subprocess

from experiments.benchmarks.classical import felzenszwalb, graph_cut, kmeans, slic, spectral
from segjax.runs import run_folder

PARTS = {
    "Superpixels": slic,
    "K-means": kmeans,
    "Spectral clustering and normalised cuts": spectral,
    "Graph-based": felzenszwalb,
    "Minimum cut and GrabCut": graph_cut,
}
_LIBRARIES = ("scikit-image", "scikit-learn", "scipy", "pyamg", "opencv-python-headless",
              "PyMaxflow", "fast-slic")  # fmt: skip


def main() -> None:
    """Measures, and writes both files after every part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100, help="of val; 0 takes all")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; the median counts")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--only", default="", help="file of one part, such as slic")
    parser.add_argument("--output", default=str(pathlib.Path(__file__).parent))
    given = parser.parse_args()
    path = pathlib.Path(given.output) / "results.json"
    found = json.loads(path.read_text()) if given.only and path.exists() else {"parts": {}}
    for title, part in PARTS.items():
        name = part.__name__.rpartition(".")[2]
        if given.only in ("", name):
            rows = part.measure(given.images, given.rounds)
            found["parts"][title] = {"rows": rows, **_circumstances(given)}
            path.write_text(json.dumps(found, indent=1) + "\n")
            path.with_suffix(".md").write_text(page(found))
            print(section(title, found["parts"][title]), flush=True)


def _circumstances(given: argparse.Namespace) -> dict:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    versions = run_folder.versions()
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": given.hardware,
        "command": f"python -m experiments.benchmarks.classical.bench --images={given.images} "
        f"--rounds={given.rounds}",
        "commit": commit,
        "versions": versions,
    }


def page(found: dict) -> str:
    """All parts in Markdown."""
    sections = [section(title, part) for title, part in found["parts"].items()]
    return "\n\n".join(["# Classical methods beside the libraries", *sections]) + "\n"


def section(title: str, part: dict) -> str:
    """One part: its circumstances and a table of every group of rows that has the same columns."""
    groups: dict[tuple, list[dict]] = {}
    for row in part["rows"]:
        groups.setdefault(tuple(row), []).append(row)
    software = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    made = (part["command"], part["hardware"], part["date"], part["commit"], software)
    lines = [f"## {title}", "`{}`; {}; {}; commit {}; {}".format(*made)]
    for columns, rows in groups.items():
        table = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        table += [f"| {' | '.join(_cell(row[c]) for c in columns)} |" for row in rows]
        lines.append("\n".join(table))
    return "\n\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

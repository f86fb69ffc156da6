"""Every classical method beside the libraries, on BSDS500, in one run: numbers and a page.

    SEGJAX_DATA=DIR python -m experiments.benchmarks.classical.bench --images=100 --rounds=3 \
        --hardware="2 cores of an AMD EPYC"

Needs scikit-image, scikit-learn, pyamg and PyMaxflow; fast-slic, which is built from source, is
compared where it is installed. Writes results.json and results.md beside this file, or into
`--output`.
"""

import argparse
import importlib.metadata
import json
import pathlib

from experiments.benchmarks.classical import felzenszwalb, graph_cut, kmeans, slic, spectral
from experiments.shared import pages
from segjax import files

PARTS = {
    "Superpixels": slic,
    "K-means": kmeans,
    "Spectral clustering and normalised cuts": spectral,
    "Graph-based": felzenszwalb,
    "Minimum cut and GrabCut": graph_cut,
}
COMMAND = "python -m experiments.benchmarks.classical.bench"
_LIBRARIES = ("scikit-image", "scikit-learn", "scipy", "pyamg", "opencv-python-headless",
              "PyMaxflow", "fast-slic")  # fmt: skip


def main() -> None:
    """Measures, and writes both files after every part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=100, help="of val; 0 takes all")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; the median counts")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--only", default="", help="file of one part, such as slic")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    path = given.output / "results.json"
    results = json.loads(path.read_text()) if given.only and path.exists() else {"parts": {}}
    for title, part in PARTS.items():
        name = part.__name__.rpartition(".")[2]
        if given.only in ("", name):
            rows = part.measure(given.images, given.rounds)
            results["parts"][title] = {"rows": rows, **circumstances(given)}
            files.write_json(path, results)
            pages.write(path.with_suffix(".md"), page(results))
            print(*section(title, results["parts"][title]), sep="\n\n", flush=True)


def circumstances(given: argparse.Namespace) -> dict:
    """The part's circumstances, with the versions of the libraries."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            libraries[name] = "absent"
    command = f"{COMMAND} --images={given.images} --rounds={given.rounds}"
    return pages.circumstances(command, given.hardware, **libraries)


def page(results: dict) -> list[str]:
    """The paragraphs of the page."""
    sections = [section(title, part) for title, part in results["parts"].items()]
    return [
        "# Classical methods beside the libraries",
        "Every part is repeated by the command below. Under its title stands the command that made "
        "it, with the commit.",
        pages.block(f"SEGJAX_DATA=DIR {COMMAND} --images=100 --rounds=2 --hardware=TEXT"),
        *(paragraph for paragraphs in sections for paragraph in paragraphs),
    ]


def section(title: str, part: dict) -> list[str]:
    """One part: its circumstances and a table of every group of rows that has the same columns."""
    groups: dict[tuple, list[dict]] = {}
    for row in part["rows"]:
        groups.setdefault(tuple(row), []).append(row)
    software = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
    made = (part["command"], part["hardware"], part["date"], part["commit"], software)
    tables = [
        pages.table(columns, [[_cell(row[column]) for column in columns] for row in rows])
        for columns, rows in groups.items()
    ]
    return [f"## {title}", "`{}`; {}; {}; commit {}; {}".format(*made), *tables]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

"""Measures a table of networks against PyTorch: errors, costs, fixtures, and the page's cells."""

import argparse
import dataclasses
import functools
import json
import pathlib
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from experiments.parity import drawn, nets, our_side, report
from experiments.parity.nets import DIVISOR, Net
from experiments.parity.origins import ORIGINS
from experiments.shared import costs, pages

EVERY = 5  # pixels kept in a fixture: shares no factor with the strides, so every phase is seen
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Table:
    """Networks to compare.

    Attributes:
        name: of the page and of the fixtures' folder.
        networks: by name.
        counts: further ones: (name, as which network, parameters at the cost's classes, cost).
        own: (name, divisor, classes) -> an oracle of our own.
        checkouts: flag -> (repository, what makes an oracle of (folders by flag, name, divisor,
            classes)).
    """

    name: str
    networks: Mapping[str, Net]
    counts: Sequence[tuple[str, str, int | None, nets.Cost]]
    own: Callable
    checkouts: Mapping[str, tuple[str, Callable]]

    @property
    def fixtures(self) -> pathlib.Path:
        """Their folder."""
        return pages.ROOT / "tests" / "fixtures" / self.name

    @property
    def columns(self) -> list[str]:
        """Every size that some network sees."""
        sizes = dict.fromkeys(size for net in self.networks.values() for size in net.sizes)
        return [f"{height} x {width}" for height, width in sizes]


def main(table: Table, page: Callable, more: Callable | None = None) -> None:
    """Measures, then writes the fixtures and, unless `--only` names some networks, the page.

    Args:
        table: what to measure.
        page: (table, measured) -> the page's title, and the paragraphs behind the command.
        more: (name, net, maker) -> further numbers of a network, under "more", or None.
    """
    parser = argparse.ArgumentParser()
    for flag in table.checkouts:
        parser.add_argument(f"--{flag}", required=True, help="a checkout")
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--only", default="", help="these networks alone, and no page")
    given = parser.parse_args()
    folders = {flag: vars(given)[flag.replace("-", "_")] for flag in table.checkouts}
    makers = {
        flag: functools.partial(make, folders)
        for flag, (_, make) in table.checkouts.items()
        if make
    } | {"own": table.own}
    measured = {"narrow": {}, "full": {}, "sizes": {}, "more": {}}
    if not given.only:
        measured["counts"] = [count(table, *row) for row in table.counts]
    for name in given.only.split(",") if given.only else table.networks:
        net, started = table.networks[name], time.time()
        maker = makers[net.oracle]
        measured["narrow"][name] = measure_narrow(table, name, maker)
        measured["full"][name] = compare(net, maker(name, 1, net.classes), 1)
        measured["sizes"][name] = {
            "parameters": costs.parameters(net.build(1, net.classes)),
            "said_parameters": net.parameters,
            "said_by": net.said,
            **multiplied(net, net.cost),
        }
        if more and (found := more(name, net, maker)):
            measured["more"][name] = found
        print(name, f"{time.time() - started:.0f} s", measured["full"][name], flush=True)
    if not given.only:
        write_page(table, measured, folders, given.hardware, page(table, measured))


def count(table: Table, label: str, base: str, said: int | None, cost: nets.Cost) -> dict[str, Any]:
    """A row of the further counts."""
    net = table.networks[base]
    return {
        "name": label,
        "classes": cost.classes,
        "parameters": costs.parameters(net.build(1, cost.classes, cost.changes)),
        "said_parameters": said,
        **multiplied(net, cost),
    }


def measure_narrow(table: Table, name: str, maker: Callable) -> dict[str, Any]:
    """Errors of the narrow network and the effect of its tensors; writes the fixture."""
    net, oracle = table.networks[name], maker(name, DIVISOR, nets.K)
    found = compare(net, oracle, DIVISOR)
    if net.fixture:
        write_fixture(table.fixtures / f"{name}.npz", net, oracle)
    return found | {"float64": to_float64(net, oracle), "least": least_share(net, oracle)}


def write_fixture(path: pathlib.Path, net: Net, oracle: Any) -> None:
    """Writes the recipes of the weights, and the logits of every output at two sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    step = 1 if net.pooled else EVERY
    logits = {
        f"{output} {size[0]}x{size[1]}": found[::step, ::step] if found.ndim == 3 else found
        for size in net.sizes[:2]
        for output, found in zip(
            net.outputs, run_oracle(net, oracle, size, oracle.weights), strict=True
        )
    }
    np.savez_compressed(path, recipes=json.dumps(oracle.recipes), **logits)


def image(net: Net, size: tuple[int, int], dtype: Any = torch.float32) -> torch.Tensor:
    """The image as the weights know images, [1, 3, H, W]."""
    made = ORIGINS[net.origin].preprocess
    pixels = drawn.draw_images([size], net.patch)[0].astype(np.float64)
    x = (pixels - np.array(made["mean"])) / np.array(made["std"])
    x = x[:, :, ::-1] if made["bgr"] else x
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))[None]).to(dtype)


def run_oracle(
    net: Net, oracle: Any, size: tuple[int, int], weights: Mapping, dtype: Any = torch.float32
) -> list[np.ndarray]:
    """Logits of every output, [H, W, K] or [K]."""
    return oracle.run(image(net, size, dtype), weights)


def ours(net: Net, divisor: int, weights: Mapping) -> Callable:
    """fn(size) -> logits of every output by our network, with the oracle's weights."""
    build = net.build(divisor, net.classes if divisor == 1 else nets.K)
    run = our_side.network(build, ORIGINS[net.origin].preprocess, net.pooled)
    trees = our_side.trees(build, net.origin, weights)
    return lambda size: run(trees, drawn.draw_images([size], net.patch)[0])


def compare(net: Net, oracle: Any, divisor: int) -> dict[str, float]:
    """Largest difference over all outputs, of the largest logit of each, by size."""
    rows, run = {}, None
    for size in net.sizes:
        expected = run_oracle(net, oracle, size, oracle.weights)
        # Only now has an oracle of ours drawn its weights.
        run = run or ours(net, divisor, oracle.weights)
        worst = largest_error(run(size), expected)
        assert worst <= TOLERANCE, (net, size, worst)
        rows[f"{size[0]} x {size[1]}"] = worst
    return rows


def largest_error(found: Sequence, expected: Sequence) -> float:
    """The largest error over the outputs, each relative to its largest logit."""
    return max(our_side.error(a, b) for a, b in zip(found, expected, strict=True))


def to_float64(net: Net, oracle: Any) -> dict[str, float]:
    """Largest errors of the narrow network and of torch, both in float32, to the oracle in float64.

    They are taken over the outputs, at the first size.
    """
    size = net.sizes[0]
    exact = run_oracle(net, oracle, size, oracle.weights, torch.float64)
    return {
        "ours": largest_error(ours(net, DIVISOR, oracle.weights)(size), exact),
        "torch": largest_error(run_oracle(net, oracle, size, oracle.weights), exact),
    }


def least_share(net: Net, oracle: Any) -> dict[str, Any]:
    """The tensor whose loss changes the logits of any output least, and that change.

    Relative to the largest logit, at the first size. A lost tensor is zero, a lost variance is
    multiplied by four.
    """
    size, shares = net.sizes[0], {}
    expected = run_oracle(net, oracle, size, oracle.weights)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks on a shared machine wait for the second
    for name, weight in oracle.weights.items():
        if oracle.recipes[name].kind == "counter":
            continue
        without = weight * np.float32(4 if oracle.recipes[name].kind == "var" else 0)
        got = run_oracle(net, oracle, size, oracle.weights | {name: without})
        shares[name] = largest_error(got, expected)
    torch.set_num_threads(threads)
    name = min(shares, key=shares.get)
    return {"tensor": name, "share": shares[name], "tensors": len(shares)}


def multiplied(net: Net, cost: nets.Cost | None) -> dict[str, Any]:
    """Our multiply-adds in 10^9 beside the published ones; nothing where there are none."""
    if not cost or not cost.gmac:
        return {}
    build = net.build(1, cost.classes, cost.changes)
    counted = costs.multiply_adds(build, cost.sides(), net.pooled)
    return {"size": cost.size, "gmac": counted / 1e9, "said_gmac": cost.gmac}


def write_page(
    table: Table,
    measured: Mapping,
    folders: Mapping[str, str],
    hardware: str,
    parts: Sequence[str],
) -> None:
    """NAME.json and NAME.md beside this file."""
    flags = " ".join(f"--{name}=DIR" for name in folders)
    command = f"python -m experiments.parity.{table.name} {flags} --hardware=TEXT"
    checkouts = ", ".join(
        f"{repository} at {commit_of(flag, folders[flag])}"
        for flag, (repository, _) in table.checkouts.items()
    )
    about = {"oracle": f"github.com/{checkouts}"} | pages.circumstances(
        command, hardware, torch=torch.__version__
    )
    report.write(table.name, about, {k: v for k, v in measured.items() if v}, parts)


def commit_of(name: str, folder: str) -> str:
    """The commit of a checkout, or the one that an unpacked wheel of torchvision was built from."""
    version = pathlib.Path(folder, name, "version.py")
    if version.exists():
        built = dict(re.findall(r"(\w+) = '(.+)'", version.read_text()))
        return f"{built['git_version'][:7]} ({built['__version__']})"
    command = ["git", "-C", folder, "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def networks(table: Table, measured: Mapping) -> str:
    """Parameters, multiply-adds and errors at full width, in Markdown."""
    rows = [
        [
            name,
            table.networks[name].oracle,
            *cost_cells(found),
            found["said_by"] if found["said_parameters"] else "",
            *error_cells(table, measured["full"][name]),
        ]
        for name, found in measured["sizes"].items()
    ]
    return pages.table(
        ["net", "oracle", "parameters / said", "GMAC / said", "by", *table.columns], rows
    )


def about_narrow(table: Table) -> str:
    """The paragraph before `narrow`."""
    return (
        f"The tests repeat most networks at a {DIVISOR}th of the width without torch, from every "
        f"fifth pixel of the oracle's logits in `tests/fixtures/{table.name}`; the weights are "
        "drawn again from their names. The table gives the errors, at the first size also those of "
        "either side to the oracle in float64. To show that every tensor counts, it names the "
        "tensor whose loss (zero in its place, four times a variance) changes the logits least, "
        "and that change relative to the largest logit:"
    )


def narrow(table: Table, measured: Mapping) -> str:
    """Errors of the narrow networks and what their tensors do, in Markdown."""
    rows = [
        [
            name,
            *error_cells(table, found),
            *(f"{found['float64'][side]:.1e}" for side in ("ours", "torch")),
            f"{found['least']['share']:.4f}",
            f"`{found['least']['tensor']}`",
        ]
        for name, found in measured["narrow"].items()
    ]
    more = ["ours to float64", "torch to float64", "least change", "without"]
    return pages.table(["net", *table.columns, *more], rows)


def counts(measured: Mapping) -> str:
    """The further counts, in Markdown."""
    rows = [[row["name"], str(row["classes"]), *cost_cells(row)] for row in measured["counts"]]
    return pages.table(["net", "classes", "parameters / said", "GMAC / said"], rows)


def error_cells(table: Table, found: Mapping[str, float]) -> list[str]:
    """Cells of the table's columns."""
    return [f"{found[size]:.1e}" if size in found else "" for size in table.columns]


def cost_cells(found: Mapping[str, Any]) -> list[str]:
    """Cells of parameters and multiply-adds, ours and the published ones."""
    said = found["said_parameters"]
    parameters = f"{found['parameters']:,}" + (f" / {said:,}" if said else "")
    if "gmac" not in found:
        return [parameters, ""]
    digits = 3 if found["gmac"] < 15 else 1
    theirs, size = f"{found['said_gmac']:.{digits}f}", found["size"]
    size = size if isinstance(size, int) else " x ".join(map(str, size))
    return [parameters, f"{found['gmac']:.{digits}f} / {theirs} at {size}"]

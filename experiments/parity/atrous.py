"""ResNets, DeepLabs and PSPNets against PyTorch with the same random weights; fixtures of tests.

    python -m experiments.parity.atrous --torchvision=DIR --semseg=DIR --deeplab-pytorch=DIR \
        --hardware="2 CPU cores" [--only=resnet18]

The directories are checkouts of the repositories (of torchvision an unpacked wheel will do); their
networks run as they are, and nothing of them is kept but logits. Networks that they lack are in
`oracle_nets.py`. Writes experiments/parity/atrous.{json,md} and, of the narrow networks, every
fifth pixel of the logits to tests/fixtures/atrous/*.npz.
"""

import argparse
import functools
import json
import pathlib
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from experiments.parity import atrous_nets, common, oracle_nets, upstream
from experiments.parity.atrous_nets import DIVISOR, NETS, Net
from segjax.models import weights as importers

FIXTURES = common.ROOT / "tests" / "fixtures" / "atrous"
EVERY = 5  # pixels kept in a fixture: shares no factor with the strides, so every phase is seen
TOLERANCE = 1e-4
COLUMNS = [f"{height} x {width}" for height, width in atrous_nets.SIZES]
CHECKOUTS = {
    "torchvision": upstream.torchvision,
    "semseg": upstream.semseg,
    "deeplab-pytorch": upstream.deeplab_pytorch,
}


def main() -> None:
    """Measures, then writes the fixtures and the page."""
    parser = argparse.ArgumentParser()
    for name in CHECKOUTS:
        parser.add_argument(f"--{name}", required=True, help="a checkout")
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--only", default="", help="these networks alone, and no page")
    given = parser.parse_args()
    only = given.only.split(",") if given.only else list(NETS)
    folders = {name: vars(given)[name.replace("-", "_")] for name in CHECKOUTS}
    makers = {name: functools.partial(CHECKOUTS[name], folder) for name, folder in folders.items()}
    makers["own"] = oracle_nets.make
    measured = {"narrow": {}, "full": {}, "sizes": {}}
    for name in only:
        net, started = NETS[name], time.time()
        measured["narrow"][name] = measure_narrow(name, net, makers[net.oracle])
        measured["full"][name] = compare(net, makers[net.oracle](name, 1, net.classes), 1)
        measured["sizes"][name] = {
            "parameters": common.parameters(net.build(1, net.classes)),
            "said_parameters": net.parameters,
            "said_by": net.said,
            **multiplied(net, net.cost),
        }
        print(name, f"{time.time() - started:.0f} s", measured["full"][name], flush=True)
    if not given.only:
        measured["counts"] = [
            {
                "name": label,
                "classes": cost.classes,
                "parameters": common.parameters(NETS[base].build(1, cost.classes, cost.changes)),
                "said_parameters": count,
                **multiplied(NETS[base], cost),
            }
            for label, base, count, cost in atrous_nets.COUNTS
        ]
        write_page(measured, folders, given.hardware)


def measure_narrow(name: str, net: Net, maker: Callable) -> dict[str, Any]:
    """Errors of the narrow network, what each of its tensors does; writes the fixture."""
    oracle = maker(name, DIVISOR, atrous_nets.K)
    found = compare(net, oracle, DIVISOR)
    if net.fixture:
        write_fixture(name, net, oracle)
    return found | {"float64": to_float64(net, oracle), "least": least_share(net, oracle)}


def write_fixture(name: str, net: Net, oracle: Any) -> None:
    """NAME.npz: how to draw the weights, and the logits of every output at two sizes."""
    FIXTURES.mkdir(parents=True, exist_ok=True)
    step = 1 if net.pooled else EVERY
    logits = {
        f"{output} {size[0]}x{size[1]}": found[::step, ::step] if found.ndim == 3 else found
        for size in net.sizes[:2]
        for output, found in zip(
            net.outputs, run_oracle(net, oracle, size, oracle.weights), strict=True
        )
    }
    np.savez_compressed(FIXTURES / f"{name}.npz", recipes=json.dumps(oracle.recipes), **logits)


def run_oracle(
    net: Net, oracle: Any, size: tuple[int, int], weights: Mapping, dtype: Any = torch.float32
) -> list[np.ndarray]:
    """Logits of every output, [H, W, K] or [K]; the image is made as the origin says."""
    made = importers.ORIGINS[net.origin].preprocess
    image = common.draw_images([size])[0].astype(np.float64)
    x = (image - np.array(made["mean"])) / np.array(made["std"])
    x = x[:, :, ::-1] if made["bgr"] else x
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))[None]).float()
    return oracle.run(x, weights)


def compare(net: Net, oracle: Any, divisor: int) -> dict[str, float]:
    """Largest difference over all outputs, of the largest logit of each, by size."""
    classes = net.classes if divisor == 1 else atrous_nets.K
    build, rows, trees = net.build(divisor, classes), {}, None
    run = common.network(build, importers.ORIGINS[net.origin].preprocess, net.pooled)
    for size in net.sizes:
        expected = run_oracle(net, oracle, size, oracle.weights)
        if trees is None:  # an oracle of our own has drawn its weights now
            trees = common.trees(build, net.origin, oracle.weights)
        got = run(trees, common.draw_images([size])[0])
        worst = max(common.error(a, b) for a, b in zip(got, expected, strict=True))
        assert worst <= TOLERANCE, (net, size, worst)
        rows[f"{size[0]} x {size[1]}"] = worst
    return rows


def to_float64(net: Net, oracle: Any) -> dict[str, float]:
    """Largest errors of the narrow network and of torch in float32, of the oracle in float64.

    Over the outputs, at the first size.
    """
    size = net.sizes[0]
    exact = run_oracle(net, oracle, size, oracle.weights, torch.float64)
    build = net.build(DIVISOR, atrous_nets.K)
    run = common.network(build, importers.ORIGINS[net.origin].preprocess, net.pooled)
    trees = common.trees(build, net.origin, oracle.weights)
    both = {
        "ours": run(trees, common.draw_images([size])[0]),
        "torch": run_oracle(net, oracle, size, oracle.weights),
    }
    return {
        name: max(common.error(a, b) for a, b in zip(found, exact, strict=True))
        for name, found in both.items()
    }


def least_share(net: Net, oracle: Any) -> dict[str, Any]:
    """The tensor without which the logits of some output change least, and by how much.

    Of the largest logit, at the first size; a variance is not set to zero but multiplied by four.
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
        changes = [common.error(a, b) for a, b in zip(got, expected, strict=True)]
        shares[name] = max(changes)
    torch.set_num_threads(threads)
    name = min(shares, key=shares.get)
    return {"tensor": name, "share": shares[name], "tensors": len(shares)}


def multiplied(net: Net, cost: atrous_nets.Cost | None) -> dict[str, Any]:
    """10^9 multiply-adds, ours and those that were said; nothing where nobody said."""
    if not cost or not cost.gmac:
        return {}
    build = net.build(1, cost.classes, cost.changes)
    count = common.multiply_adds(build, (cost.size, cost.size), net.pooled)
    return {"size": cost.size, "gmac": count / 1e9, "said_gmac": cost.gmac}


def write_page(measured: Mapping, folders: Mapping[str, str], hardware: str) -> None:
    """atrous.json and atrous.md beside this file."""
    commits = {name: commit_of(name, folder) for name, folder in folders.items()}
    flags = " ".join(f"--{name}=DIR" for name in folders)
    about = common.about(
        argparse.Namespace(hardware=hardware),
        command=f"python -m experiments.parity.atrous {flags} --hardware=TEXT",
        oracle="github.com/"
        + ", ".join(
            f"{owner}/{name} at {commits[key]}"
            for key, owner, name in (
                ("torchvision", "pytorch", "vision"),
                ("semseg", "hszhao", "semseg"),
                ("deeplab-pytorch", "kazuto1011", "deeplab-pytorch"),
            )
        ),
        versions={"torch": torch.__version__},
    )
    common.write_page("atrous", about, measured, page(measured))


def commit_of(name: str, folder: str) -> str:
    """Of a checkout; of an unpacked wheel of torchvision the one it was built from."""
    version = pathlib.Path(folder, name, "version.py")
    if version.exists():
        built = dict(re.findall(r"(\w+) = '(.+)'", version.read_text()))
        return f"{built['git_version'][:7]} ({built['__version__']})"
    command = ["git", "-C", folder, "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def errors(found: Mapping[str, float]) -> list[str]:
    """Cells of COLUMNS."""
    return [f"{found[size]:.1e}" if size in found else "" for size in COLUMNS]


def costs(found: Mapping[str, Any]) -> list[str]:
    """Cells of parameters and multiply-adds, ours and those that were said."""
    said = found["said_parameters"]
    parameters = f"{found['parameters']:,}" + (f" / {said:,}" if said else "")
    if "gmac" not in found:
        return [parameters, ""]
    digits = 3 if found["gmac"] < 15 else 1
    theirs = f"{found['said_gmac']:.{digits}f}"
    return [parameters, f"{found['gmac']:.{digits}f} / {theirs} at {found['size']}"]


def page(measured: Mapping) -> list[str]:
    """The page's title and what comes after the command, in Markdown."""
    main = [
        [
            name,
            NETS[name].oracle,
            *costs(found),
            found["said_by"] if found["said_parameters"] else "",
            *errors(measured["full"][name]),
        ]
        for name, found in measured["sizes"].items()
    ]
    narrow = [
        [
            name,
            *errors(found),
            *(f"{found['float64'][side]:.1e}" for side in ("ours", "torch")),
            f"{found['least']['share']:.4f}",
            f"`{found['least']['tensor']}`",
        ]
        for name, found in measured["narrow"].items()
    ]
    more = [[found["name"], str(found["classes"]), *costs(found)] for found in measured["counts"]]
    head = ["net", "oracle", "parameters / said", "GMAC / said", "by", *COLUMNS]
    return [
        "# ResNets, DeepLabs and PSPNets against PyTorch",
        "Both networks have the same random weights, those of the batch norms too, ours through "
        "the importer of their origin, and see the same images in float32. Both run on CPU, ours "
        "with the convolutions' forms for CPU. Largest difference of the logits at the image's "
        "size over all pixels, classes and outputs, of the largest logit (allowed: "
        f"{TOLERANCE:.0e}), at full width. Outputs are the prediction, the "
        "auxiliary head's (torchvision, semseg), every scale's and their maximum "
        '(deeplab-pytorch). semseg takes sizes of 8 n + 1 alone. The oracle "own" is '
        "`oracle_nets.py`, written from the papers and specs with torch's layers.",
        common.table(head, main),
        "Parameters are those of training, auxiliary heads and the vectors of frozen norms "
        "included, running statistics not. Multiply-adds (10^9) are counted in the jaxpr of the "
        "form for accelerators: convolutions and matrix products; products in full precision, "
        "which are resizes and pyramid poolings, and everything else are left out, as in the "
        "counts they are held against. A classifier's last layer is counted once, on the mean. "
        "torchvision's counts have the auxiliary head, those of PSPNet do not, and those of "
        "DeepLab v2 are of one scale. More counts, against the spec:",
        common.table(["net", "classes", "parameters / said", "GMAC / said"], more),
        f"The tests repeat most networks at a {DIVISOR}th of the width without torch, from every "
        "fifth pixel of the oracle's logits in `tests/fixtures/atrous`; the weights are drawn "
        "again from their names. Errors; at the first size those of either side to the oracle in "
        "float64; and, that every tensor is seen, of all tensors the one whose loss (zero for it, "
        "four times for a variance) changes the logits least, and by how much of the largest:",
        common.table(
            ["net", *COLUMNS, "ours to float64", "torch to float64", "least change", "without"],
            narrow,
        ),
        "deeplab-pytorch is run as by the PyTorch of its time, which mapped pixels of the smaller "
        "scales by the ratio of the sizes; since 1.6 PyTorch uses the factor asked for, and sizes "
        "that 0.5 or 0.75 does not divide differ by a part of a pixel.",
    ]


if __name__ == "__main__":
    main()

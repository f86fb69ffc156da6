"""RefineNet, GCN and SegNet against PyTorch with the same random weights; fixtures of tests.

    python -m experiments.parity.decoders --torchvision=DIR --refinenet=DIR --gcn=DIR \
        --hardware="2 CPU cores" [--only=segnet]

The directories are checkouts of the repositories (for torchvision an unpacked wheel will do). Their
networks run as they are; only logits are kept. Networks that they lack are in
`decoder_oracles.py`. Writes experiments/parity/decoders.{json,md} and, of the narrow networks,
every fifth pixel of the logits to tests/fixtures/decoders/*.npz.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.parity import (
    decoder_nets,
    decoder_oracles,
    drawn,
    measure,
    our_side,
    upstream,
)
from experiments.parity.nets import Net
from experiments.parity.oracle_nets import Weights
from experiments.parity.origins import ORIGINS
from experiments.shared import pages
from segjax.models import convolution, functional, unpooling
from segjax.models.preprocess import Preprocess

TABLE = measure.Table(
    "decoders",
    decoder_nets.NETS,
    decoder_nets.COUNTS,
    decoder_oracles.make,
    {
        "torchvision": ("pytorch/vision", upstream.torchvision),
        "refinenet": ("DrSleep/refinenet-pytorch", upstream.refinenet),
        "gcn": ("zijundeng/pytorch-semantic-segmentation", upstream.gcn),
    },
)
PATCHES = {"every pixel its own": (1, 1), "patches of 5 x 7": (5, 7)}


def _plain_3x3(x, kernel, padding: int, dilation: int) -> jax.Array:
    return convolution.conv_form(x, kernel, 1, dilation, ((padding, padding),) * 2)


FORMS = {
    "form for CPU": {"conv_3x3": convolution.conv_3x3, "conv_any": convolution.conv_any},
    "form for accelerators": {"conv_3x3": _plain_3x3, "conv_any": convolution.conv_form},
}


def more(name: str, net: Net, maker: Callable) -> Any:
    """SegNet's choices in its poolings at full width; GCN's errors where sides are odd."""
    oracle = maker(name, 1, net.classes)
    if net.origin == "caffe_segnet":
        return [
            {
                "image": label,
                "size": size,
                **choices(dataclasses.replace(net, patch=patch), oracle, size),
            }
            for label, patch in PATCHES.items()
            for size in net.sizes
        ]
    if net.oracle == "gcn":
        return odd_sides(net, oracle)
    return None


def choices(net: Net, oracle: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Counts choices that are not the oracle's in float64, and the errors of the logits.

    Errors are in float32, ours in both forms of convolutions, on CPU.
    """
    expected = measure.run_oracle(net, oracle, size, oracle.weights)
    exact = their_choices(net, oracle, size, torch.float64)
    found, errors = {"torch": their_choices(net, oracle, size, torch.float32)}, {}
    for form, functions in FORMS.items():
        with mock.patch.multiple(convolution, **functions):
            found[form] = our_choices(net, oracle.weights, size)
            got = measure.ours(net, 1, oracle.weights)(size)
        errors[form] = measure.largest_error(got, expected)
    return {
        "windows": sum(stage.size for stage in exact),
        "differ": {
            program: sum(int((a != b).sum()) for a, b in zip(stages, exact, strict=True))
            for program, stages in found.items()
        },
        "error": errors,
    }


def our_choices(net: Net, weights: Mapping, size: tuple[int, int]) -> list[np.ndarray]:
    """Our choices, 0 to 3 in reading order: [h, w, C] of every stage."""
    build = net.build(1, net.classes)
    graph = functional.graphs(build).inference
    prepare = Preprocess(**ORIGINS[net.origin].preprocess)

    @jax.jit
    def run(trees, image):
        features = functional.merge(graph, *trees).backbone(prepare(image[None]))
        # Each chosen pixel is marked with a one; its place in the 2 x 2 is the choice.
        return [
            unpooling.unpool(jnp.ones((1, -(-s.size[0] // 2), -(-s.size[1] // 2), s.channels)), s)[
                0
            ]
            for s in features.pool_selections.values()
        ]

    marks = run(our_side.trees(build, net.origin, weights), drawn.draw_images([size], net.patch)[0])
    return [_which(np.asarray(x)) for x in marks]


def _which(marks: np.ndarray) -> np.ndarray:
    """[H, W, C], one mark in every 2 x 2 -> its place there, [h, w, C]."""
    height, width, channels = marks.shape
    marks = np.pad(marks, ((0, height % 2), (0, width % 2), (0, 0)))
    marks = marks.reshape(-(-height // 2), 2, -(-width // 2), 2, channels)
    return marks.transpose(0, 2, 4, 1, 3).reshape(*marks.shape[::2], 4).argmax(-1)


def their_choices(
    net: Net, oracle: Any, size: tuple[int, int], dtype: torch.dtype
) -> list[np.ndarray]:
    """The oracle's choices, likewise."""
    seen = []
    weights = Weights(oracle.weights, oracle.recipes, oracle.style, dtype)
    with torch.no_grad():
        oracle.net(weights, measure.image(net, size, dtype), seen=seen)
    return [
        (at // width % 2 * 2 + at % width % 2)[0].permute(1, 2, 0).numpy()
        for at, (_, width) in seen
    ]


def odd_sides(net: Net, oracle: Any) -> dict[str, float]:
    """Errors where their network is told the true size of the image."""

    def told(module, x):
        module.input_size = x.shape[2:]
        return [module(x)]

    oracle.forward = told
    run = measure.ours(net, 1, oracle.weights)
    return {
        f"{size[0]} x {size[1]}": measure.largest_error(
            run(size), measure.run_oracle(net, oracle, size, oracle.weights)
        )
        for size in net.sizes
    }


def chosen(measured: Mapping) -> str:
    """`choices` of SegNet's networks, in Markdown."""
    rows = [
        [
            name,
            row["image"],
            " x ".join(map(str, row["size"])),
            f"{row['windows']:,}",
            *(f"{row['differ'][program]:,}" for program in ("torch", *FORMS)),
            *(f"{row['error'][form]:.1e}" for form in FORMS),
        ]
        for name, found in measured["more"].items()
        if isinstance(found, list)
        for row in found
    ]
    columns = [
        "torch",
        *(f"ours, {form}" for form in FORMS),
        *(f"logits, {form}" for form in FORMS),
    ]
    return pages.table(["net", "image", "size", "choices", *columns], rows)


def told(measured: Mapping) -> str:
    """Largest of `odd_sides`, by whether the size has an odd side."""
    found = [row for row in measured["more"].values() if isinstance(row, dict)]
    odd, even = (
        max(
            error
            for row in found
            for size, error in row.items()
            if any(int(n) % 2 for n in size.split(" x ")) == is_odd
        )
        for is_odd in (True, False)
    )
    return f"{odd:.1e} at sizes with an odd side and {even:.1e} at the even one"


def page(table: measure.Table, measured: Mapping) -> list[str]:
    """The page's title, and the paragraphs behind the command."""
    blocks = [
        [str(taps), f"{decoder_nets.block_parameters(taps):,} / {said}K"]
        for taps, said in decoder_nets.BLOCKS.items()
    ]
    return [
        "# RefineNet, the Global Convolutional Network and SegNet against PyTorch",
        "Both networks have the same random weights, batch norms included (ours are loaded through "
        "the importer of their origin), and see the same images in float32. Both run on the CPU, "
        "ours with its forms of convolutions for CPUs. The table gives the largest difference of "
        "the logits at the image's size, over all pixels and classes, relative to the largest "
        f"logit (allowed: {measure.TOLERANCE:.0e}), at full width. refinenet: DrSleep's port of "
        "the release, its chains of four, pooled first, its maps and logits stretched corner on "
        "corner. gcn: zijundeng's, k 7, biases, `upsample_bilinear`, which was corner on corner in "
        "PyTorch 0.2 and is so today; it is built on ResNet-152, and for ResNet-50 it is given "
        'that backbone. The oracle "own" is `decoder_oracles.py`, written from the papers, specs '
        "and prototxts with torch's layers: zijundeng's SegNet has transposed convolutions, "
        "concatenates the encoder's maps and is on VGG-19. RefineNet: `paper`, chains of two; "
        "`improved`, four, convolved first; `two` and `one`, cascades of two and of one block, in "
        "our widths. GCN: `paper`, k 15, no biases. SegNet: four vectors a norm; `merged`, the "
        "release's two; Bayesian SegNet as in its example for CamVid, without sampling.",
        measure.networks(table, measured),
        "Parameters are those of training, the vectors of frozen norms included, running "
        "statistics not. The spec gives chains of two as a difference to chains of four. "
        "Multiply-adds (10^9) are counted in the jaxpr of the form for accelerators: convolutions "
        "and matrix products; resizes are left out, as in the counts they are held against. More "
        "counts, against the spec:",
        measure.counts(measured),
        "One block of GCN on res-5, 21 classes, against table 2 of the paper:",
        pages.table(["k", "parameters / said"], blocks),
        measure.about_narrow(table),
        measure.narrow(table, measured),
        "SegNet is not continuous: where two of a window's four values are equal but for rounding, "
        "either may be chosen, and the value lands elsewhere. The table counts, at full width and "
        "over all stages and channels, the choices that differ from torch's in float64: those of "
        "torch in float32, and ours in both forms of convolutions. It also gives the difference of "
        "the logits from torch's, relative to the largest. The tables above use images of the "
        "first kind. In a patch of one colour neighbours are equal in exact numbers, and rounding "
        "decides; Winograd's tiles, in the form for CPUs, round by the place in the tile. With "
        "random weights, whose decoders are not smooth, this shows.",
        chosen(measured),
        "GCN's head knows the size of stage 1, not that of the image: it makes a map of twice that "
        "size, which has a pixel more where a side is odd, and crops it. zijundeng's head is told "
        "the size; above it is told one pixel more, and cropped. Told the true size of the image "
        f"it differs from ours by {told(measured)}.",
    ]


if __name__ == "__main__":
    measure.main(TABLE, page, more)

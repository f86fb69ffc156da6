"""ResNets, DeepLabs and PSPNets against PyTorch with the same random weights; fixtures of tests.

    python -m experiments.parity.atrous --torchvision=DIR --semseg=DIR --deeplab-pytorch=DIR \
        --hardware="2 CPU cores" [--only=resnet18]

The directories are checkouts of the repositories (for torchvision an unpacked wheel will do). Their
networks run as they are; only logits are kept. Networks that they lack are in `oracle_nets.py`.
Writes experiments/parity/atrous.{json,md} and, of the narrow networks, every fifth pixel of the
logits to tests/fixtures/atrous/*.npz.
"""

from collections.abc import Mapping

from experiments.parity import atrous_nets, measure, oracle_nets, upstream

TABLE = measure.Table(
    "atrous",
    atrous_nets.NETS,
    atrous_nets.COUNTS,
    oracle_nets.make,
    {
        "torchvision": ("pytorch/vision", upstream.torchvision),
        "semseg": ("hszhao/semseg", upstream.semseg),
        "deeplab-pytorch": ("kazuto1011/deeplab-pytorch", upstream.deeplab_pytorch),
    },
)


def page(table: measure.Table, measured: Mapping) -> list[str]:
    """The page's title, and the paragraphs behind the command."""
    return [
        "# ResNets, DeepLabs and PSPNets against PyTorch",
        "Both networks have the same random weights, batch norms included (ours are loaded through "
        "the importer of their origin), and see the same images in float32. Both run on the CPU, "
        "ours with its forms of convolutions for CPUs. The table gives the largest difference of "
        "the logits at the image's size, over all pixels, classes and outputs, relative to the "
        f"largest logit (allowed: {measure.TOLERANCE:.0e}), at full width. Outputs are the "
        "prediction, the "
        "auxiliary head's (torchvision, semseg), every scale's and their maximum "
        '(deeplab-pytorch). semseg takes only sizes of 8 n + 1. The oracle "own" is '
        "`oracle_nets.py`, written from the papers and specs with torch's layers.",
        measure.networks(table, measured),
        "Parameters are those of training, auxiliary heads and the vectors of frozen norms "
        "included, running statistics not. Multiply-adds (10^9) are counted in the jaxpr of the "
        "form for accelerators: convolutions and matrix products; products in full precision, "
        "which are resizes and pyramid poolings, and everything else are left out, as in the "
        "counts they are held against. A classifier's last layer is counted once, on the mean. "
        "torchvision's counts have the auxiliary head, those of PSPNet do not, and those of "
        "DeepLab v2 are of one scale. More counts, against the spec:",
        measure.counts(measured),
        measure.about_narrow(table),
        measure.narrow(table, measured),
        "deeplab-pytorch is run as by the PyTorch of its time, which mapped pixels of the smaller "
        "scales by the ratio of the sizes; since 1.6 PyTorch uses the factor asked for, and sizes "
        "that 0.5 or 0.75 does not divide differ by a part of a pixel.",
    ]


if __name__ == "__main__":
    measure.main(TABLE, page)

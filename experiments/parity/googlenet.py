"""GoogLeNet of a sixteenth of the width in PyTorch (float64): weights and logits as a fixture.

    python -m experiments.parity.googlenet tests/fixtures/googlenet.npz

Written for this comparison, after the description of the BVLC release: torch's own convolutions,
ceil-mode poolings, `LocalResponseNorm` and average pooling, the weights by caffejs's names.
"""

import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, K = 4, 5
SIZES = ((97, 130), (64, 33))
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def narrow(channels: int) -> int:
    return max(1, channels * WIDTH // 64)


def main(path: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    arrays = {}

    def conv(x, name, outputs, size, stride=1):
        """A layer with drawn weights; the same ones when it is called again."""
        inputs = x.shape[1]
        if f"{name}_filter" not in arrays:
            shape = (outputs, size, size, inputs)
            drawn = rng.normal(0, np.sqrt(2 / (size * size * inputs)), shape)
            arrays[f"{name}_filter"] = drawn.astype(np.float16)
            arrays[f"{name}_bias"] = rng.normal(0, 0.3, outputs).astype(np.float32)
        weight = torch.tensor(arrays[f"{name}_filter"].astype(np.float64)).permute(0, 3, 1, 2)
        bias = torch.tensor(arrays[f"{name}_bias"].astype(np.float64))
        return F.conv2d(x, weight, bias, stride=stride, padding=size // 2)

    norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    halve = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    same = nn.MaxPool2d(3, stride=1, padding=1)

    def network(x):
        x = F.relu(conv(x, "conv1/7x7_s2", narrow(64), 7, 2))
        x = norm(halve(x))
        x = F.relu(conv(x, "conv2/3x3_reduce", narrow(64), 1))
        x = norm(F.relu(conv(x, "conv2/3x3", narrow(192), 3)))
        for name, widths in MODULES.items():
            if name in ("3a", "4a", "5a"):
                x = halve(x)
            one, reduce3, three, reduce5, five, pool = map(narrow, widths)
            name = f"inception_{name}"
            small = F.relu(conv(x, f"{name}/3x3_reduce", reduce3, 1))
            tiny = F.relu(conv(x, f"{name}/5x5_reduce", reduce5, 1))
            branches = (
                conv(x, f"{name}/1x1", one, 1),
                conv(small, f"{name}/3x3", three, 3),
                conv(tiny, f"{name}/5x5", five, 5),
                conv(same(x), f"{name}/pool_proj", pool, 1),
            )
            x = F.relu(torch.cat(branches, 1))
        return conv(x.mean((2, 3), keepdim=True), "loss3/classifier", K, 1)[0, :, 0, 0]

    cases = {}
    for size in SIZES:
        # Drawn from the seed in the test, too: the fixture holds the logits alone.
        image = np.random.default_rng(size[0]).normal(0, 100, (*size, 3)).astype(np.float32)
        x = torch.tensor(image.astype(np.float64)).permute(2, 0, 1)[None]
        cases[f"logits_{size[0]}x{size[1]}"] = network(x).numpy()
    print({name: value.round(3) for name, value in cases.items()})
    np.savez_compressed(path, **arrays, **cases)


if __name__ == "__main__":
    main(sys.argv[1])

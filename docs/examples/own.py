"""A data set, a loss, a metric and a recipe in one file: see docs/extending.md."""

import jax.numpy as jnp
import numpy as np

from segjax.configs import fcn8s
from segjax.data.dataset import Dataset, numbered
from segjax.losses import pixels
from segjax.metrics import Metric


class Discs:  # a source: bright discs on noise
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index:04}"

    def __getitem__(self, index):
        rng = np.random.default_rng(self.first + index)
        y, x = np.mgrid[:48, :64]
        label = np.hypot(y - rng.integers(12, 36), x - rng.integers(12, 52)) < rng.integers(8, 16)
        image = rng.integers(0, 160, (48, 64, 3)) + 80 * label[..., None]
        return image.astype(np.uint8), label.astype(np.uint8)  # RGB; classes, 255 for void


def discs(*, count=1000):
    splits = {"train": Discs(0, count), "val": Discs(10**6, 40), "test": Discs(10**7, 40)}
    return Dataset(numbered("discs", ("ground", "disc")), splits)


class Generalised:  # Zhang, Sabuncu, 2018: between cross-entropy (q = 0) and 1 - p (q = 1)
    def __init__(self, q=0.3):
        self.q = q

    def __call__(self, place):
        return place.sum_pixels(  # of logits x and labels y; cross_entropy is 0 where y is void
            lambda x, y: (1 - jnp.exp(-self.q * pixels.cross_entropy(x, y))) / self.q
        )


class Confidence(Metric):  # the mean probability of the predicted class
    def count(self, pixels):
        return {"sum": jnp.sum(pixels.confidence * pixels.valid), "all": jnp.sum(pixels.valid)}

    def scores(self, total):
        return {"confidence": total["sum"] / total["all"] if total["all"] else np.nan}


def get_config(words=""):
    config = fcn8s.get_config(words)
    config.data = {"name": "own:discs"}
    config.loss.name, config.eval.metrics = "own:Generalised", ("own:Confidence",)
    config.model.backbone.update(width=8, fc_width=64)
    config.augment.size, config.total_steps = (48, 64), 200
    return config

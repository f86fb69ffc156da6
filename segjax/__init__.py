"""segjax: image segmentation that runs whole on the accelerator.

    import segjax

    net = segjax.load("runs/fcn8s")  # a run folder
    labels = net.label(image)  # uint8 [H, W, 3] RGB of any size -> uint8 [H, W]
    scores = net.scores([image])  # float32 [H, W, K] each

    config = segjax.recipe("fcn8s:smoke")
    config.optim.lr = 0.01
    segjax.train(config, "runs/mine")

Methods without training are functions of arrays: see `segjax.classical` and `segjax.crf`. On the
command line `segjax VERB` does the same; `segjax` alone lists the verbs.
"""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jax
    import ml_collections

    from segjax.prediction import Predictor

__version__ = "0.1.0"


def load(
    workdir: str | os.PathLike,
    *,
    step: str | int = "best",
    weights: str = "raw",
    protocol: str = "",
    crf: str = "",
    devices: Sequence[jax.Device] | None = None,
) -> Predictor:
    """Loads a trained network from its run folder, ready to label images.

    Args:
        workdir: the run folder.
        step: "best", "latest" or the number of a step.
        weights: "raw" or "ema" (averaged).
        protocol, crf: as the flags of `segjax predict`; "" for those of the run.
        devices: devices to use; None for all.

    Raises:
        InputError: if the checkpoint does not exist, or the protocol or CRF is unknown.
    """
    from segjax import network, prediction

    run = network.load(pathlib.Path(workdir), str(step), weights, devices)
    return prediction.from_run(run, protocol=protocol, crf=crf)


def pretrained(
    config: ml_collections.ConfigDict, *, protocol: str = "", crf: str = ""
) -> Predictor:
    """The network of a recipe with the weights that its `config.init.from` names.

    Args:
        config: such as `segjax.recipe("deeplab_v3_mobilenet_voc")`.
        protocol, crf: override those of the config.

    Raises:
        InputError: if the config names no weights, or they do not fit.
    """
    from segjax import prediction

    return prediction.pretrained(config, protocol=protocol, crf=crf)


def recipe(name: str) -> ml_collections.ConfigDict:
    """The config of a recipe, to be changed at will.

    Args:
        name: "RECIPE[:WORD,...]", a shipped recipe or the path of one, as `--config` takes it.

    Raises:
        InputError: if there is no such recipe, or it refuses the words.
    """
    from segjax.configuration import loading

    return loading.load(name)


def train(config: ml_collections.ConfigDict, workdir: str | os.PathLike) -> None:
    """Trains a network to `config.total_steps`, from where its run folder left it.

    Args:
        config: of `recipe`.
        workdir: the run folder; checkpoints, scores and pictures go there.

    Raises:
        InputError: on bad config or data, a folder of another config, a full disk, or a loss that
            stays non-finite.
    """
    from segjax.training import loop

    loop.run(config, pathlib.Path(workdir))

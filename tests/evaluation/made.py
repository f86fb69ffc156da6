"""Networks, splits and evaluators of scenes of 48 x 64."""

import dataclasses
from typing import Any

import jax
import ml_collections

from segjax.data import catalog
from segjax.data.splits import Split, open_split
from segjax.evaluation import protocol as protocols
from segjax.evaluation.evaluator import Evaluator
from segjax.evaluation.protocol import Protocol
from segjax.network import Network
from segjax.training import assembly
from tests import tiny


@dataclasses.dataclass(frozen=True)
class Scene:
    """A training with an awake network, and the validation split of its data.

    Attributes:
        training: on some devices.
        network: of the training, on its devices.
        split: "val".
    """

    training: assembly.Training
    network: Network
    split: Split

    def protocol(self, views: str = "", crf: str = "", **changes: Any) -> Protocol:
        """The protocol of these texts, with other changes."""
        config = self.training.config
        bucket = protocols.run_bucket(config, self.split.scan.sizes)
        made = protocols.resolve(config, bucket, split="val", views_text=views, crf_text=crf)
        return dataclasses.replace(made, **changes)

    def evaluator(
        self, views: str = "", crf: str = "", *, details: bool = False, **changes: Any
    ) -> Evaluator:
        """An evaluator of the split under `protocol`."""
        training = self.training
        return Evaluator(
            training.config,
            training.model,
            training.mesh,
            self.split,
            self.protocol(views, crf, **changes),
            class_weights=training.loss.class_weights,
            details=details,
        )


def on_scenes(config: ml_collections.ConfigDict, devices: int = 1) -> Scene:
    """An awake network of a config on the first `devices` devices."""
    dataset = catalog.load(**config.data)
    training = assembly.assemble(config, dataset.spec, None, jax.devices()[:devices])
    return Scene(training, tiny.network(training), open_split(dataset, "val"))

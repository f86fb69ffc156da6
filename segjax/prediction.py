"""Prediction: a network that labels photographs, for `predict` and for scripts.

import segjax

net = segjax.load("runs/fcn8s")
labels = net.label(image)  # uint8 [H, W, 3] of any size -> uint8 [H, W]
"""

import dataclasses
from collections.abc import Iterator, Sequence

import ml_collections
import numpy as np
from jax.sharding import Mesh

from segjax import initial_weights
from segjax import network as networks
from segjax.data import catalog
from segjax.data.sources import Source
from segjax.data.spec import VOID, DatasetSpec
from segjax.evaluation import protocol as protocols
from segjax.evaluation.labeller import Labeller
from segjax.evaluation.result import cut
from segjax.network import Network


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image with its labels.

    Attributes:
        index: index of the image in its source.
        image: uint8 [H, W, 3].
        label: uint8 [H, W], classes.
        before: uint8 [H, W], the labels before the CRF, or None without a CRF.
        uncertainty: float32 [H, W], the variance of the softmax over dropout passes, averaged over
            classes; None without dropout passes.
        scores: float32 [H, W, K], or None if not requested.
    """

    index: int
    image: np.ndarray
    label: np.ndarray
    before: np.ndarray | None
    uncertainty: np.ndarray | None
    scores: np.ndarray | None


class Predictor:
    """A network that labels images of any size under one protocol.

    Args:
        config: config of the run or recipe.
        network: the network.
        mesh: devices of its weights.
        step: training step of the weights; 0 without a run.
        bucket: bucket of the run, see `evaluation.protocol.run_bucket`; without a run images are
            labelled at their exact sizes, unless the config or the views have a bucket.
        split: split in the protocol.
        protocol, crf: override those of the config, see `evaluation.protocol.resolve`.

    Attributes:
        network: the network.
        mesh: devices of its weights.
        step: training step of the weights.
        protocol: protocol that images are labelled under, whatever lies beside them.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        network: Network,
        mesh: Mesh,
        *,
        step: int = 0,
        bucket: int | None = None,
        split: str = "",
        protocol: str = "",
        crf: str = "",
    ):
        self.network, self.mesh, self.step = network, mesh, step
        self._config = config
        if bucket is None:
            bucket = config.eval.bucket or protocols.EXACT
        resolved = protocols.resolve(config, bucket, split=split, views_text=protocol, crf_text=crf)
        self.protocol = dataclasses.replace(resolved, limit=0)
        self._labellers: dict[bool, Labeller] = {}

    @property
    def spec(self) -> DatasetSpec:
        """The class names and colours."""
        return self.network.model.spec

    @property
    def programs(self) -> int:
        """Number of compiled programs of the network and its views."""
        return sum(labeller.programs for labeller in self._labellers.values())

    def labelled(
        self, source: Source, sizes: np.ndarray, *, scores: bool = False
    ) -> Iterator[Labelled]:
        """Labels a source batch by batch; images of one size come together.

        Args:
            source: images to label; their truth is ignored.
            sizes: int32 [N, 2], image sizes.
            scores: whether to return scores too.
        """
        if scores not in self._labellers:
            self._labellers[scores] = Labeller(
                self.network.model,
                self.mesh,
                self.protocol,
                metrics=(),
                blocks=self._config.loss.blocks,
                loader=self._config.loader,
                keep_scores=scores,
            )
        labeller = self._labellers[scores]
        for _, batch, out in labeller.batches(self.network, source, labeller.plan(sizes)):
            images, labels = cut(batch, batch["image"]), cut(batch, out["prediction"])
            maps = {key: cut(batch, out[key]) for key in out.keys() & set(_MAPS)}
            for index, label in labels.items():
                more = {key: maps[key][index] if key in maps else None for key in _MAPS}
                yield Labelled(index, images[index], label, **more)

    def label(self, image: np.ndarray) -> np.ndarray:
        """The classes of an image: uint8 [H, W, 3] RGB -> uint8 [H, W]."""
        (labelled,) = self._label_arrays([image])
        return labelled.label

    def scores(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """The class scores of images of any size, before softmax.

        With several views these are fused scores or log probabilities, depending on the protocol;
        with a CRF they are the scores of the CRF.

        Args:
            images: uint8 [H, W, 3] RGB each, or an array [N, H, W, 3].

        Returns:
            float32 [H, W, K] for each image.
        """
        labelled = self._label_arrays(images, scores=True)
        return [one.scores for one in labelled if one.scores is not None]

    def _label_arrays(
        self, images: np.ndarray | Sequence[np.ndarray], *, scores: bool = False
    ) -> list[Labelled]:
        source = _Arrays(images)
        sizes = np.array([source[i][1].shape for i in range(len(source))], np.int32)
        return sorted(self.labelled(source, sizes, scores=scores), key=lambda one: one.index)


_MAPS = ("before", "uncertainty", "scores")


class _Arrays:
    """A source of images in memory; every label is VOID."""

    def __init__(self, images: np.ndarray | Sequence[np.ndarray]):
        self._images = [np.asarray(image) for image in images]
        for image in self._images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    "An image is uint8 [H, W, 3], RGB of 0 to 255; got "
                    f"{image.dtype} {list(image.shape)}."
                )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._images[index]
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The index of an image as its name."""
        return str(index)


def from_run(run: networks.Trained, *, protocol: str = "", crf: str = "") -> Predictor:
    """The network of a run; `segjax.load` reads one from its folder.

    Args:
        run: a run as one of its checkpoints left it.
        protocol, crf: in place of the run's own.

    Raises:
        InputError: if a protocol or CRF is not known.
    """
    return Predictor(
        run.config,
        run.network,
        run.mesh,
        step=run.step,
        bucket=run.bucket,
        split=run.meta["protocol"]["split"],
        protocol=protocol,
        crf=crf,
    )


def pretrained(
    config: ml_collections.ConfigDict,
    spec: DatasetSpec | None = None,
    *,
    protocol: str = "",
    crf: str = "",
) -> Predictor:
    """The network of a recipe with the weights that it names.

    Args:
        config: the recipe.
        spec: classes of the weights; None for those of the config's data set, or under
            `config.init.network` "weights" for those that the weights were made for.
        protocol, crf: override those of the config.

    Raises:
        InputError: if the recipe names no weights, or they do not fit.
    """
    if spec is None and config.init.network != "weights":
        spec = catalog.load(**config.data).spec
    network, mesh = initial_weights.pretrained(config, spec)
    return Predictor(config, network, mesh, protocol=protocol, crf=crf)

"""The evaluation protocol: every setting that affects a score, resolved once and stored with it."""

import dataclasses
from typing import Any

import ml_collections
import numpy as np

from segjax import crf as crfs
from segjax.data import pipeline
from segjax.errors import InputError
from segjax.evaluation import views
from segjax.evaluation.views import Views


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Re-estimation of batch norm statistics before an evaluation.

    Attributes:
        split: data set split that they were estimated on.
        batches: number of training batches averaged.
    """

    split: str
    batches: int


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings for labelling images, shared by train, evaluate and predict.

    Attributes:
        split: data set split.
        limit: number of examples, spread over the split; 0 uses all.
        batch_size: images, or windows of images, per batch.
        bucket: sides are padded to a multiple of this; 1 pads nothing.
        fill: RGB of the padding, 0 to 255.
        input_scale: scale at which the network sees images.
        input_size: size at which the network sees images, in place of a scale; (0, 0) for none.
        views: views of an image and their fusion.
        crf: CRF applied to the network's scores, or None.
        statistics: re-estimated batch norm statistics, or None for those of training.
    """

    split: str
    limit: int
    batch_size: int
    bucket: int
    fill: tuple[float, float, float]
    input_scale: float
    input_size: tuple[int, int]
    views: Views
    crf: crfs.DenseCrf | None = None
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        if self.crf is not None and self.views.argmax != "image":
            raise InputError(
                f"{crfs.KEY}: a CRF needs scores at the size of the image, but protocol argmax is "
                f"{self.views.argmax!r}."
            )

    def to_json(self) -> dict[str, Any]:
        """The protocol as plain data, as stored with scores."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["views"] = self.views.to_json()
        fields["crf"] = None if self.crf is None else self.crf.to_json()
        statistics = fields.pop("statistics")
        if statistics is not None:
            fields["statistics"] = dataclasses.asdict(statistics)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Protocol":
        """The inverse of `to_json`; a protocol stored without views gets the default view."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        fields["views"] = Views.from_json(fields.get("views", {}))
        fields["crf"] = crfs.DenseCrf(**fields["crf"]) if fields.get("crf") else None
        if fields.get("statistics"):
            fields["statistics"] = Statistics(**fields["statistics"])
        return cls(**fields)


EXACT = 1
"""The bucket that pads nothing: what an image gets where no run has decided."""


def run_bucket(config: ml_collections.ConfigDict, sizes: np.ndarray) -> int:
    """The bucket of a run: `config.eval.bucket`, or if that is 0, what suits the images.

    It is decided once, when a run starts, and holds for all its splits, views and photographs. If
    it followed the images at hand, the labels of an image would depend on which lie beside it.

    Args:
        config: run config.
        sizes: int32 [N, 2], sizes of the images that the run is evaluated on while it trains.
    """
    return pipeline.resolve_bucket(config.eval.bucket, sizes)


def resolve(
    config: ml_collections.ConfigDict,
    bucket: int,
    *,
    split: str = "",
    views_text: str = "",
    crf_text: str = "",
) -> Protocol:
    """The protocol for a config and flags.

    Args:
        config: run config.
        bucket: result of `run_bucket`, for views that have none of their own.
        split: overrides `config.eval.split`.
        views_text: overrides `config.eval.protocol`.
        crf_text: overrides `config.eval.crf`, in the format of `crf.parse`; "none" for no CRF.

    Raises:
        InputError: if the views or the CRF are unknown, or if images would be padded although the
            network sees them at one fixed size.
    """
    chosen = views.parse(views_text or config.eval.protocol)
    split = split or config.eval.split
    bucket = chosen.bucket or bucket
    if any(chosen.tile):
        bucket = EXACT  # windows are cut from the unpadded image
    elif any(config.input_size):
        # The padding would be resized into the fixed size together with the image.
        for given in (chosen.bucket or 0, config.eval.bucket):
            if given > 1:
                raise InputError(
                    f"config.eval.bucket is {given}; with config.input_size it is 0 or 1."
                )
        bucket = EXACT
    return Protocol(
        split=split,
        limit=config.eval.limit,
        batch_size=config.eval.batch_size,
        bucket=bucket,
        fill=tuple(config.preprocess.mean),
        input_scale=config.input_scale,
        input_size=tuple(config.input_size),
        views=chosen,
        crf=crf_of(config, crf_text),
    )


def crf_of(config: ml_collections.ConfigDict, text: str = "") -> crfs.DenseCrf | None:
    """The CRF of a config, or the one described by `text`, see `resolve`."""
    if text == "none":
        return None
    return crfs.parse(text) if text else crfs.build(**config.eval.crf)

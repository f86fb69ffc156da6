"""The protocol of a number: everything that decides how it is made, resolved once, stored whole."""

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
    """Statistics of batch norms that were estimated again before a number was made.

    Attributes:
        split: of the data set they were estimated over.
        batches: how many batches of training were averaged.
    """

    split: str
    batches: int


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a network labels images; train, evaluate and predict obey the same one.

    Attributes:
        split: of the data set.
        limit: examples, spread over the split; 0 takes all.
        batch_size: images, or windows of them, at once.
        bucket: sides are filled up to a multiple of it; 1 fills nothing.
        fill: RGB of what images are filled up with, 0 to 255.
        input_scale, input_size: the network sees images at this scale, or at this size unless it
            is (0, 0).
        views: of an image, and their fusion.
        crf: behind the network, or None.
        statistics: of batch norms, where they are not those of training.
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
                f"{crfs.KEY}: it refines at the size of the image; protocol argmax "
                f"{self.views.argmax!r} does not go with it."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data: what is stored beside a number."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["views"] = self.views.to_json()
        fields["crf"] = None if self.crf is None else self.crf.to_json()
        statistics = fields.pop("statistics")
        if statistics is not None:
            fields["statistics"] = dataclasses.asdict(statistics)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in fields.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Protocol":
        """The inverse of `to_json`; what was stored before there were views is one look."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        fields["views"] = Views.from_json(fields.get("views", {}))
        fields["crf"] = crfs.DenseCrf(**fields["crf"]) if fields.get("crf") else None
        if fields.get("statistics"):
            fields["statistics"] = Statistics(**fields["statistics"])
        return cls(**fields)


def resolve(
    config: ml_collections.ConfigDict,
    sizes: np.ndarray,
    *,
    split: str = "",
    views_text: str = "",
    crf_text: str = "",
    trained: Protocol | None = None,
) -> Protocol:
    """The protocol that a config, the flags and a run's own one come to.

    Args:
        config: of the run.
        sizes: int32 [N, 2], of the images.
        split: in place of `config.eval.split`.
        views_text: in place of `config.eval.protocol`.
        crf_text: in place of `config.eval.crf`, as `crf.parse` reads it; "none" for none.
        trained: the protocol that the run was evaluated under while it trained; images of the
            same split under the same views are filled up as there.

    Raises:
        InputError: on views or a CRF that are not known, or if images shall be filled up that the
            network sees at one fixed size.
    """
    chosen = views.parse(views_text or config.eval.protocol)
    split = split or config.eval.split
    bucket = config.eval.bucket if chosen.bucket is None else chosen.bucket
    if any(chosen.tile):
        bucket = 1  # windows are cut from the image itself, whatever its size
    elif any(config.input_size):
        # What fills an image up would be squeezed into that size with it.
        if bucket > 1:
            raise InputError(
                f"config.eval.bucket is {bucket}; with config.input_size it is 0 or 1."
            )
        bucket = 1
    if trained is not None and (chosen, split) == (trained.views, trained.split):
        bucket = trained.bucket
    return Protocol(
        split=split,
        limit=config.eval.limit,
        batch_size=config.eval.batch_size,
        bucket=pipeline.resolve_bucket(bucket, sizes),
        fill=tuple(config.preprocess.mean),
        input_scale=config.input_scale,
        input_size=tuple(config.input_size),
        views=chosen,
        crf=crf_of(config, crf_text),
    )


def crf_of(config: ml_collections.ConfigDict, text: str = "") -> crfs.DenseCrf | None:
    """The CRF of a config, or the one that `text` puts in its place: see `resolve`."""
    if text == "none":
        return None
    return crfs.parse(text) if text else crfs.build(**config.eval.crf)

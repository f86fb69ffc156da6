"""The tables of backbones and heads, and `build`, which puts a network together.

Adding one is a line in a table; "module:Name" in the config takes one that lives elsewhere. A
backbone is a class `(*, option=..., dtype, rngs)` with `channels`, stage -> C, whose call
`(x, rngs=None)` gives `Features`. A head is a class `(channels, num_classes, *, option=..., dtype,
rngs)` whose call `(features, rngs=None)` gives `Scores`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from segjax import registry
from segjax.errors import InputError, choose
from segjax.models import crf_rnn, multiscale, remat
from segjax.models.backbones import googlenet, mobilenet, resnet, segnet_encoder, vgg, vgg_atrous
from segjax.models.features import Features, Scores
from segjax.models.heads import (
    classifier,
    conv,
    deeplab_v1,
    deeplab_v2,
    deeplab_v3,
    fcn,
    fcn8_lecture,
    gcn,
    pspnet,
    refinenet,
    segnet,
    segnet_controls,
)

BACKBONES = {
    "googlenet": googlenet.GoogLeNet,
    "mobilenet_v2": mobilenet.MobileNetV2,
    "resnet": resnet.ResNet,
    "segnet_encoder": segnet_encoder.SegNetEncoder,
    "vgg16": vgg.VGG16,
    "vgg16_atrous": vgg_atrous.VGG16Atrous,
}
HEADS = {
    "bilinear": segnet_controls.Bilinear,
    "classifier": classifier.Classifier,
    "conv": conv.ConvHead,
    "deeplab_v1": deeplab_v1.DeepLabV1,
    "deeplab_v2": deeplab_v2.DeepLabV2,
    "deeplab_v3": deeplab_v3.DeepLabV3,
    "deeplab_v3plus": deeplab_v3.DeepLabV3Plus,
    "fcn16s": fcn.FCN16s,
    "fcn32s": fcn.FCN32s,
    "fcn8_lecture": fcn8_lecture.FCN8Lecture,
    "fcn8s": fcn.FCN8s,
    "fcn_basic": segnet_controls.FCNBasic,
    "gcn": gcn.GCN,
    "pspnet": pspnet.PSPNet,
    "refinenet": refinenet.RefineNet,
    "segnet": segnet.SegNet,
}
DTYPES = ("float32", "bfloat16")

_PART = "config.model.*"  # in errors of heads and norms, which do not know where they stand


class Segmenter(nnx.Module):
    """A backbone, a head, and the auxiliary head that some recipes train beside it.

    Args:
        backbone, head, aux: the parts; aux may be None.
        multi_scale: `scales` and `align` of `multiscale.fused`, or None.
        crf: what refines the head's scores, or None.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        head: nnx.Module,
        aux: nnx.Module | None,
        multi_scale: Mapping | None = None,
        crf: crf_rnn.CRFRNN | None = None,
    ):
        self.backbone = backbone
        self.head = head
        if aux is not None:
            self.aux = aux
        if crf is not None:
            self.crf = crf
        self.multi_scale = multi_scale and dict(multi_scale)
        self.remat = "none"  # a training step sets it: one of `remat.RULES`

    def __call__(
        self, x: jax.Array, rngs: nnx.Rngs | None = None, image: jax.Array | None = None
    ) -> tuple[Scores, ...]:
        """float [B, H, W, 3], normalised -> the prediction's Scores, then those only for training.

        `rngs` gives the dropout keys; without it the model must be deterministic. `image` is the
        same as RGB of 0 to 255, uint8 or float; only a CRF looks at it.

        Raises:
            InputError: if there is a CRF and no `image`.
        """

        def features_of(x: jax.Array) -> Features:
            with _errors_of("backbone"):
                return _features(self.backbone, x, rngs, self.remat)

        def scores_of(features: Features) -> Scores:
            with _errors_of("head"):
                return self.head(features, rngs=rngs)

        if self.multi_scale:
            return multiscale.fused(lambda x: scores_of(features_of(x)), x, **self.multi_scale)
        features = features_of(x)
        scores = scores_of(features)
        if hasattr(self, "crf"):
            if image is None:
                raise InputError("config.model.crf: there is no image of 0 to 255 for it here.")
            scores = self.crf(scores, image)
        if hasattr(self, "aux"):
            with _errors_of("aux"):
                return scores, self.aux(features, rngs=rngs)
        return (scores,)


def _features(backbone: nnx.Module, x: jax.Array, rngs: nnx.Rngs | None, rule: str) -> Features:
    """What a backbone computes; a training step may keep a part of it only."""
    if rule == "none":
        found: Features = backbone(x, rngs=rngs)
        return found
    traced: list[Features] = []

    def stages_of(backbone, x, rngs):
        traced.append(backbone(x, rngs=rngs))
        return dict(traced[-1].stages), dict(traced[-1].pool_selections)

    stages, selections = remat.rematerialised(stages_of, rule)(backbone, x, rngs)
    return dataclasses.replace(traced[-1], stages=stages, pool_selections=selections)


def build(
    *,
    backbone: Mapping,
    head: Mapping,
    aux: Mapping | None,
    num_classes: int,
    dtype: str,
    multi_scale: Mapping | None = None,
    crf: Mapping | None = None,
    rngs: nnx.Rngs,
) -> Segmenter:
    """A network in training mode.

    Args:
        backbone, head, aux: `name`, of BACKBONES or HEADS or "module:Name", and the options of its
            constructor; `aux` may be None.
        num_classes: K.
        dtype: of the computation, "float32" or "bfloat16".
        multi_scale: None, or `scales` and `align` of `multiscale.fused`: the network is run at
            every scale; there is no auxiliary head and no CRF then.
        crf: None, or options of `crf_rnn.CRFRNN`, which may be {}: it refines the head's scores.
        rngs: supplies the initialisation keys.

    Raises:
        InputError: on an unknown name or option, naming those that are allowed.
    """
    choose("config.dtype", dtype, DTYPES)
    for name, part in (("aux", aux), ("crf", crf)):
        if part is not None and multi_scale:
            raise InputError(f"config.model: {name} and multi_scale do not go together.")
    if multi_scale:
        key = "config.model.multi_scale"
        registry.bind(multiscale.fused, multi_scale, key, name="it", positional=("network", "x"))
    arguments = {"dtype": jnp.dtype(dtype), "rngs": rngs}
    trunk = _named(BACKBONES, backbone, "backbone", arguments)
    if not hasattr(trunk, "channels"):
        raise InputError(
            f"config.model.backbone.name: {backbone['name']} has no `channels`, stage -> C."
        )
    arguments = {"channels": trunk.channels, "num_classes": num_classes} | arguments
    main = _named(HEADS, head, "head", arguments)
    side = _named(HEADS, aux, "aux", arguments) if aux else None
    last = None
    if crf is not None:
        last = registry.bind(
            crf_rnn.CRFRNN, crf, crf_rnn.KEY, name="CRF-RNN", positional=("num_classes",)
        )(num_classes)
    return Segmenter(trunk, main, side, multi_scale, last)


def _named(
    table: registry.Table, config: Mapping, part: str, arguments: Mapping[str, Any]
) -> nnx.Module:
    """The part of a network that `config` names, with its options and `arguments`."""
    make = registry.resolve(table, config, f"config.model.{part}", keywords=tuple(arguments))
    with _errors_of(part):
        return make(**arguments)


@contextlib.contextmanager
def _errors_of(part: str) -> Iterator[None]:
    """Errors inside name the keys of this part: "head", "aux" or "backbone"."""
    try:
        yield
    except InputError as error:
        if _PART not in str(error):
            raise
        raise InputError(str(error).replace(_PART, f"config.model.{part}")) from error

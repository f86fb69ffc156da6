"""The registries of backbones and heads, and `build`, which puts a network together.

Adding one is a line in a registry; a name with a colon, such as "my_heads:MyHead", is imported, so
that a head can live outside the package.
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from segjax.errors import InputError, choose
from segjax.models import crf_rnn, multiscale
from segjax.models.backbones import googlenet, mobilenet, resnet, segnet_encoder, vgg, vgg_atrous
from segjax.models.features import Scores
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

    def __call__(
        self, x: jax.Array, rngs: nnx.Rngs | None = None, image: jax.Array | None = None
    ) -> tuple[Scores, ...]:
        """float [B, H, W, 3], normalised -> the prediction's Scores, then those only for training.

        `rngs` gives the dropout keys; without it the model must be deterministic. `image` is the
        same as RGB of 0 to 255, uint8 or float; only a CRF looks at it.

        Raises:
            InputError: if there is a CRF and no `image`.
        """
        if self.multi_scale:
            return multiscale.fused(
                lambda x: self.head(self.backbone(x, rngs=rngs), rngs=rngs), x, **self.multi_scale
            )
        features = self.backbone(x, rngs=rngs)
        scores = self.head(features, rngs=rngs)
        if hasattr(self, "crf"):
            if image is None:
                raise InputError("config.model.crf: there is no image of 0 to 255 for it here.")
            scores = self.crf(scores, image)
        if hasattr(self, "aux"):
            return scores, self.aux(features, rngs=rngs)
        return (scores,)


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
        backbone, head, aux: `name` in the registry or "module:Class", and the options that its
            constructor takes.
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
    dtype = jnp.dtype(dtype)
    trunk = _make(BACKBONES, "backbone", backbone)(dtype=dtype, rngs=rngs)
    make_head = functools.partial(_make, HEADS)
    arguments = {"channels": trunk.channels, "num_classes": num_classes, "dtype": dtype}
    main = make_head("head", head)(**arguments, rngs=rngs)
    side = make_head("aux", aux)(**arguments, rngs=rngs) if aux else None
    last = None
    if crf is not None:
        last = _bound(crf_rnn.CRFRNN, "crf", "CRF-RNN", crf)(num_classes)
    return Segmenter(trunk, main, side, multi_scale, last)


def _make(registry: Mapping[str, type], part: str, options: Mapping) -> Callable[..., nnx.Module]:
    """The constructor named in `options`, with the rest of them bound."""
    options = dict(options)
    name = options.pop("name")
    return _bound(_find(registry, part, name), part, name, options)


def _bound(cls: type, part: str, name: str, options: Mapping) -> Callable[..., nnx.Module]:
    """A constructor with options bound that it must know."""
    options = dict(options)
    known = inspect.signature(cls.__init__).parameters
    given_later = ("self", "channels", "num_classes", "dtype", "rngs")
    allowed = [key for key in known if key not in given_later]
    for key in options:
        if key not in allowed:
            raise InputError(
                f"config.model.{part}: {name} takes no {key!r}; allowed: {', '.join(allowed)}."
            )
    missing = [
        key
        for key in allowed
        if known[key].default is inspect.Parameter.empty and key not in options
    ]
    if missing:
        raise InputError(f"config.model.{part}: {name} needs {', '.join(missing)}.")
    return functools.partial(cls, **options)


def _find(registry: Mapping[str, type], part: str, name: str) -> type:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"config.model.{part}: cannot import {name!r}: {error}.") from error
    if name not in registry:
        near = difflib.get_close_matches(name, registry, 1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise InputError(
            f"config.model.{part}: unknown name {name!r}; known: {', '.join(sorted(registry))}, "
            f"or module:Class.{hint}"
        )
    return registry[name]

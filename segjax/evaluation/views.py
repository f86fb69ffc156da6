"""Views of an image and the fusion of their scores, as plain data.

`config.eval.protocol` names them: a preset, followed by the keys that differ, as in
"pspnet_ms_flip, tile=(713, 713), long_side=2048".
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from segjax import registry
from segjax.arrays import Size
from segjax.errors import InputError, choose
from segjax.models.resize import CONVENTIONS

SIZES = ("round", "floor", "corners")
BLENDS = ("uniform", "smooth")
FUSIONS = ("mean_probability", "mean_logit", "max_probability", "max_logit")
ORDERS = ("before_resize", "after_resize")
PLACES = ("image", "input")
MEETINGS = ("image", "scale_1")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _above_zero(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def _are(kind: Callable[[Any], bool], values: Any, count: int = 0) -> bool:
    """Whether `values` is a tuple of `count` values of a kind; 0: one value or more."""
    sized = isinstance(values, tuple) and len(values) == (count or max(1, len(values)))
    return sized and all(map(kind, values))


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of an image and their fusion; by default a single view of the whole image.

    Attributes:
        name: name of the preset, with a mark if other keys differ from it.
        scales: scales of the image, each above 0. Scale 1 is the size that the network was trained
            to see (`config.input_scale`), or `long_side`.
        flip: whether every view is also mirrored left to right.
        long_side: long side of images at scale 1, in pixels; 0 for no change.
        short_side: (least, greatest) short side of images at scale 1, in pixels; images outside
            this range are resized to its nearest end. (0, 0) for no change.
        size: size of a side of n pixels at scale s: "round": s n, rounded; "floor": s n, rounded
            down; "corners": s (n - 1) + 1, rounded down, as in DeepLab's TensorFlow code.
        resize: convention for images and scores: "half_pixel" or "corners", see `models.resize`.
        tile: (height, width) of sliding windows in pixels; (0, 0): the whole image is the window.
            Smaller images are framed in the mean colour.
        stride: step from one window to the next as a share of the tile, 0 to 1; the last window is
            moved inside the image.
        blend: weights of overlapping windows: "uniform": equal; "smooth": lower towards the edges
            of a window (sine squared).
        fusion: fusion of views: "mean_probability", "mean_logit", "max_probability" or
            "max_logit".
        softmax: "before_resize": the softmax is taken at the size of the network's input, and
            probabilities are resized; "after_resize": scores are resized, in one step from their
            grid to the image where the head resizes under the convention of `resize` itself.
            Unused with logits.
        meet: "image": the scores of every view are resized to the image directly; "scale_1":
            those of smaller views are resized to the scores of scale 1 first. For whole images.
        argmax: "image": labels are chosen at the image's size; "input": at the size of scale 1,
            and labels are resized to the image by the nearest pixel.
        samples: number of passes with dropout on, whose probabilities are averaged (Kendall,
            Badrinarayanan, Cipolla: Bayesian SegNet, BMVC 2017); 0 is one pass without dropout.
            For a single view of the whole image.
        bucket: sides are padded to a multiple of this with the mean colour; None takes
            `config.eval.bucket`. Padding comes first: scales then refer to the padded size.
            Windows are never padded to a bucket.
    """

    name: str = "single"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    long_side: int = 0
    short_side: Size = (0, 0)
    size: str = "round"
    resize: str = "half_pixel"
    tile: Size = (0, 0)
    stride: float = 2 / 3
    blend: str = "uniform"
    fusion: str = "mean_probability"
    softmax: str = "after_resize"
    meet: str = "image"
    argmax: str = "image"
    samples: int = 0
    bucket: int | None = None

    def __post_init__(self) -> None:
        stretches = [name for name in CONVENTIONS if name != "transposed"]
        for key, known in {
            "size": SIZES,
            "resize": stretches,
            "blend": BLENDS,
            "fusion": FUSIONS,
            "softmax": ORDERS,
            "meet": MEETINGS,
            "argmax": PLACES,
            "flip": (False, True),
        }.items():
            choose(f"protocol {key}", getattr(self, key), known)
        for key, fits, allowed in (
            ("scales", _are(_above_zero, self.scales), "a tuple of numbers above 0"),
            ("tile", _are(_whole, self.tile, 2), "two whole numbers, 0 or more"),
            ("short_side", _are(_whole, self.short_side, 2), "two whole numbers, 0 or more"),
            ("long_side", _whole(self.long_side), "a whole number, 0 or more"),
            ("stride", _above_zero(self.stride) and self.stride <= 1, "above 0 and at most 1"),
            ("samples", _whole(self.samples), "a whole number, 0 or more"),
            ("bucket", self.bucket is None or _whole(self.bucket), "None, or 0 or more"),
        ):
            if not fits:
                raise InputError(f"protocol {key}: {getattr(self, key)!r}; it is {allowed}.")
        if (self.tile[0] == 0) != (self.tile[1] == 0):
            raise InputError(f"protocol tile: {self.tile}; give both sides, or (0, 0).")
        if any(self.tile) and self.meet != "image":
            raise InputError(
                f"protocol meet: {self.meet!r} works only on whole images, without a tile."
            )
        if self.short_side[0] > self.short_side[1]:
            raise InputError(f"protocol short_side: {self.short_side}; give the least first.")
        if self.long_side and any(self.short_side):
            raise InputError("protocol long_side and short_side: only one of them.")
        if self.samples and not self.plain:
            raise InputError("protocol samples: only for a single view of the whole image.")

    @property
    def plain(self) -> bool:
        """Whether there is a single view of the whole image, with scores resized to the image."""
        fields = ("scales", "flip", "long_side", "short_side", "resize", "tile", "argmax")
        one = Views()
        alike = all(getattr(self, field) == getattr(one, field) for field in fields)
        return alike and not self.softmax_at_input

    @property
    def softmax_at_input(self) -> bool:
        """Whether the softmax is taken at the size of the network's input."""
        return self.softmax == "before_resize" and "logit" not in self.fusion

    @property
    def linear(self) -> bool:
        """Whether the fused score is a sum over windows, so that views may mix in a batch."""
        before = self.softmax == "before_resize"
        return self.fusion == "mean_logit" or (self.fusion == "mean_probability" and before)

    def base_size(self, image: Size, seen: Size) -> Size:
        """The size of the view at scale 1.

        Args:
            image: size of the image.
            seen: size at which the network was trained to see the image.
        """
        if self.long_side:
            long = max(image)
            height, width = (
                self.long_side if n == long else max(1, round(self.long_side / long * n))
                for n in image
            )
            return height, width
        if any(self.short_side):
            short = min(image)
            factor = min(max(short, self.short_side[0]), self.short_side[1]) / short
            height, width = (max(1, round(factor * n)) for n in image)
            return height, width
        return seen

    def scaled(self, scale: float, image: Size, seen: Size) -> Size:
        """The size of the view at a scale; see `base_size`."""
        if self.long_side:
            # The long side is rounded first; the short side follows from it (as in semseg).
            return dataclasses.replace(self, long_side=round(scale * self.long_side)).base_size(
                image, seen
            )
        height, width = self.base_size(image, seen)
        return self._length(scale, height), self._length(scale, width)

    def _length(self, scale: float, n: int) -> int:
        length = {
            "round": lambda: round(scale * n),
            "floor": lambda: math.floor(scale * n),
            "corners": lambda: math.floor(scale * (n - 1) + 1),
        }[self.size]()
        return max(1, length)

    def to_json(self) -> dict[str, Any]:
        """The keys and values as plain data."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Views":
        """The inverse of `to_json`."""
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**fields)


PRESETS = {
    # A single view of the whole image, padded as config.eval.bucket says.
    "single": Views(),
    # Long, Shelhamer, Darrell 2015: a single view at the native size, without padding.
    "fcn": Views(bucket=1),
    # Chen et al., PAMI 2018, section 4.1.1: three scales, maximum of their scores at the size of
    # the image. The release takes it on the grid of scale 1: `config.model.multi_scale`.
    "deeplab_v2_msc": Views(scales=(1.0, 0.75, 0.5), size="floor", fusion="max_logit"),
    # Chen et al. 2017 (arXiv 1706.05587), section 4.1; sizes and resizes follow the authors'
    # TensorFlow code, which for VOC also pads images to 513 x 513: bucket=513.
    "deeplab_v3_ms_flip": Views(
        scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip=True,
        size="corners",
        resize="corners",
        meet="scale_1",
    ),
    # Zhao et al. 2017 in the author's PyTorch code, semseg: ADE20K and VOC 2012. Cityscapes:
    # tile=(713, 713), long_side=2048.
    "pspnet_ms_flip": Views(
        scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        flip=True,
        long_side=512,
        tile=(473, 473),
        softmax="before_resize",
    ),
    # Kendall et al., BMVC 2017; the release takes 4 or 8 passes.
    "bayesian_segnet": Views(samples=8),
    # Lin et al. 2017, the release's script for VOC: five scales, short sides of 450 to 800. It
    # resizes log probabilities; the results differ only in their normalisation.
    "refinenet_ms": Views(scales=(0.4, 0.6, 0.8, 1.0, 1.2), short_side=(450, 800)),
}
PRESETS = {name: dataclasses.replace(one, name=name) for name, one in PRESETS.items()}


def parse(text: str) -> Views:
    """Reads "preset" or "preset, key=value, ...".

    Raises:
        InputError: if the preset, a key or a value is not allowed.
    """
    preset, changes = registry.parse("config.eval.protocol", text)
    return registry.changed("config.eval.protocol", preset, changes, PRESETS)

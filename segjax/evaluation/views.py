"""The views of an image that a network sees, and how their scores fuse, as plain data.

`config.eval.protocol` names them: a preset, and after it whatever differs, as in
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
    """Whether it is a tuple of one kind, of `count`, or of any number but none."""
    sized = isinstance(values, tuple) and len(values) == (count or max(1, len(values)))
    return sized and all(map(kind, values))


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of an image and their fusion; by default one look at the whole image.

    Attributes:
        name: the preset, and a mark of what differs from it.
        scales: of the image, each above 0; 1 is the size that the network was trained to see
            (`config.input_scale`), or `long_side`.
        flip: every view also mirrored left to right.
        long_side: images are first brought to this long side; 0 leaves them.
        short_side: the least and the greatest short side that is left alone; (0, 0) leaves all.
        size: how scale s makes a size of n: "round": s n; "floor": the same, rounded down;
            "corners": s (n - 1) + 1, rounded down, as TensorFlow's code of DeepLab.
        resize: convention of images and scores: "half_pixel" or "corners", see `models.resize`.
        tile: (height, width) of the window that the network sees; (0, 0): the whole image.
            Smaller images are framed in the mean colour.
        stride: share of the tile from one window to the next, 0 to 1; the last one is moved inside.
        blend: what windows that overlap count: "uniform": the same; "smooth": less towards their
            edges (sine squared).
        fusion: of views: "mean_probability", "mean_logit", "max_probability" or "max_logit".
        softmax: "before_resize": probabilities are made at the size that the network saw, and
            resized; "after_resize": scores are resized. Fusions of logits take none.
        meet: "image": scores of every view come straight to it; "scale_1": those of smaller views
            come to the scores of scale 1 first. For whole images.
        argmax: "image": at the image's size; "input": at that of scale 1, the labels are brought
            to the image by the nearest pixel.
        samples: passes of every image with dropout left on, each with draws of its own, whose
            probabilities are averaged (Kendall, Badrinarayanan, Cipolla: Bayesian SegNet, BMVC
            2017); 0 is one pass without dropout. Of one look at the whole image.
        bucket: multiple that sides are filled up to with the mean colour; None takes
            `config.eval.bucket`. It comes before all else: an image's size is then that of the
            canvas. Windows need no filling up.
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
            raise InputError(f"protocol tile: {self.tile}; both sides, or (0, 0).")
        if any(self.tile) and self.meet != "image":
            raise InputError(f"protocol meet: {self.meet!r} is for whole images, not for windows.")
        if self.short_side[0] > self.short_side[1]:
            raise InputError(f"protocol short_side: {self.short_side}; the least comes first.")
        if self.long_side and any(self.short_side):
            raise InputError("protocol long_side and short_side: only one of them.")
        if self.samples and not self.plain:
            raise InputError("protocol samples: of one look at the whole image, not of views.")

    @property
    def plain(self) -> bool:
        """Whether it is one look at the whole image, scores brought to the image."""
        fields = ("scales", "flip", "long_side", "short_side", "resize", "tile", "argmax")
        one = Views()
        return all(getattr(self, field) == getattr(one, field) for field in fields)

    @property
    def softmax_at_input(self) -> bool:
        """Whether probabilities are made at the size that the network saw."""
        return self.softmax == "before_resize" and "logit" not in self.fusion

    @property
    def linear(self) -> bool:
        """Whether the fused score is a sum over views, window by window."""
        before = self.softmax == "before_resize"
        return self.fusion == "mean_logit" or (self.fusion == "mean_probability" and before)

    def base_size(self, image: Size, seen: Size) -> Size:
        """The size of scale 1.

        Args:
            image: of the image.
            seen: of what the network was trained to see of it.
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
        """The size of a view; see `base_size`."""
        if self.long_side:
            # The long side is rounded first, the other follows it (semseg's rule).
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
        """Every key and its value."""
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
    # One look at the whole image; where sizes are many, filled up to config.eval.bucket.
    "single": Views(),
    # Long, Shelhamer, Darrell 2015: one look at the native size, nothing filled up.
    "fcn": Views(bucket=1),
    # Chen et al., PAMI 2018, section 4.1.1: three scales, the maximum of their scores at the size
    # of the image. The release takes it on the grid of scale 1: `config.model.multi_scale`.
    "deeplab_v2_msc": Views(scales=(1.0, 0.75, 0.5), size="floor", fusion="max_logit"),
    # Chen et al. 2017 (arXiv 1706.05587), section 4.1; sizes and resizes are those of the authors'
    # TensorFlow code, which for VOC also fills images up to 513 x 513: bucket=513.
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
    # Lin et al. 2017 in the release's script for VOC: five scales, short sides of 450 to 800. It
    # resizes the logarithm of probabilities, which is the same but for their sum.
    "refinenet_ms": Views(scales=(0.4, 0.6, 0.8, 1.0, 1.2), short_side=(450, 800)),
}
PRESETS = {name: dataclasses.replace(one, name=name) for name, one in PRESETS.items()}


def parse(text: str) -> Views:
    """Reads "preset" or "preset, key=value, ...".

    Raises:
        InputError: on an unknown preset or key, or a value that is not allowed.
    """
    preset, changes = registry.parse("config.eval.protocol", text)
    return registry.changed("config.eval.protocol", preset, changes, PRESETS)

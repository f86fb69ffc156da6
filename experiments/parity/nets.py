"""A network of the tables: its options, the origin of its weights, its published cost.

Nothing here needs torch: the tests build the narrow ones.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from segjax import models
from segjax.models import functional

K = 5  # classes of the narrow networks
DIVISOR = 16  # of the narrow networks' widths
SIZES = ((65, 97), (64, 80), (113, 89))
BATCH, FROZEN, NONE = ({"name": name} for name in ("batch", "frozen", "none"))


class Cost(NamedTuple):
    """A published count of multiply-adds, in 10^9.

    Attributes:
        size: of the image, H and W, or the side of a square.
        classes: of the network.
        gmac: the count, or None.
        changes: to the network for this count, by part, as `Net.build` takes them.
    """

    size: int | tuple[int, int]
    classes: int
    gmac: float | None
    changes: Mapping[str, Any] = {}

    def sides(self) -> tuple[int, int]:
        """H and W."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclasses.dataclass(frozen=True)
class Net:
    """One network.

    Attributes:
        origin: of the weights, a key of `origins.ORIGINS`.
        oracle: who runs it in PyTorch: "own", or a checkout of the table's.
        model: divisor of the widths -> options of `models.build`, but for classes and dtype.
        outputs: names, in our order.
        classes: at full width.
        parameters: at `classes`, with the auxiliary head.
        cost: see `Cost`.
        said: the source of these two numbers.
        sizes: of the images.
        patch: sides of the images' patches of one colour.
        pooled: the logits are means over the map.
        fixture: whether the tests repeat it, narrow; deeper versions are left out.
    """

    origin: str
    oracle: str
    model: Callable[[int], dict[str, Any]]
    outputs: tuple[str, ...] = ("main",)
    classes: int = 21
    parameters: int | None = None
    cost: Cost | None = None
    said: str = "spec"
    sizes: tuple[tuple[int, int], ...] = SIZES
    patch: tuple[int, int] = (5, 7)
    pooled: bool = False
    fixture: bool = True

    def build(
        self, divisor: int, classes: int, changes: Mapping[str, Any] | None = None
    ) -> functional.Build:
        """Makes the network. `changes`: part -> None, or options that replace the part's."""
        model = {"aux": None, "dtype": "float32", "num_classes": classes} | self.model(divisor)
        for part, change in (changes or {}).items():
            model[part] = change and {**model[part], **change}
        return lambda rngs: models.build(**model, rngs=rngs)


def resnet(depth: int, divisor: int, norm: Mapping = BATCH, **options: Any) -> dict[str, Any]:
    """Options of a ResNet backbone."""
    return {"name": "resnet", "depth": depth, "norm": norm, "width": 64 // divisor, **options}


def of_backbone(**options: Any) -> dict[str, Any]:
    """Changes of the backbone, as `Net.build` takes them."""
    return {"backbone": options}

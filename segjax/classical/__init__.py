"""The methods before deep learning: pure functions of an image, one program each.

`method(image [H, W, 3], *, option=...) -> labels int32 [H, W]`, regions 0 .. K-1; one that cuts
something out also takes `box` int [4] (top, left, bottom, right; half-open) around it. An image is
uint8, or floats of 0 to 255, or grey, [H, W]: `segjax.contracts` says what every function takes.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

from segjax import contracts, registry

METHODS = {
    "slic": "segjax.classical.slic:slic",
    "kmeans": "segjax.classical.kmeans:kmeans",
    "spectral": "segjax.classical.spectral:spectral",
    "ncut_regions": "segjax.classical.ncut:ncut_regions",
    "felzenszwalb": "segjax.classical.felzenszwalb:felzenszwalb",
    "grabcut": "segjax.classical.grabcut:grabcut",
}
"""Name -> module and function; only the one that is asked for is imported."""

Method = Callable[..., jax.Array]


def build(name: str, **options: Any) -> Method:
    """A method with its options fixed.

    Args:
        name: one of METHODS, or "module:Name" of such a function.
        **options: of that function; see its signature.

    Returns:
        The method; it raises InputError if a user's function returns no label map.

    Raises:
        InputError: on an unknown name or option, or a missing one.
    """
    method = registry.find(METHODS, name, "config.method.name")
    arguments = ("image", "box") if takes_box(method) else ("image",)
    bound = registry.bind(method, options, "config.method", name=name, positional=arguments)
    if name in METHODS:
        return bound

    @functools.wraps(bound)
    def labelled(*arrays: jax.Array, **named: jax.Array) -> jax.Array:
        height, width = (arrays[0] if arrays else named["image"]).shape[:2]
        said = f"config.method.name: labels of {name}"
        return contracts.integers(bound(*arrays, **named), said, f"[{height}, {width}]")

    return labelled


def takes_box(method: Method) -> bool:
    """Whether a method cuts something out of a box, and is called with one."""
    return "box" in inspect.signature(method).parameters

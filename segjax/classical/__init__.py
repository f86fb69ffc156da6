"""The methods before deep learning: pure functions of an image, one program each.

`method(image uint8 [H, W, 3], *, option=...) -> labels int32 [H, W]`, regions 0 .. K-1; one that
cuts something out also takes `box` int32 [4] (top, left, bottom, right; half-open) around it.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from segjax import registry

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

    Raises:
        InputError: on an unknown name or option, or a missing one.
    """
    method = registry.find(METHODS, name, "config.method.name")
    arguments = ("image", "box") if takes_box(method) else ("image",)
    return registry.bind(method, options, "config.method", name=name, positional=arguments)


def takes_box(method: Method) -> bool:
    """Whether a method cuts something out of a box, and is called with one."""
    return "box" in inspect.signature(method).parameters

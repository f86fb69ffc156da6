"""The methods before deep learning: pure functions of an image, one program each.

`method(image uint8 [H, W, 3]) -> labels int32 [H, W]`, regions 0 .. K-1; one that cuts something
out also takes `box` int32 [4] (top, left, bottom, right; half-open) around it.
"""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable

import jax

from segjax.errors import InputError

METHODS = {
    "slic": "slic:slic",
    "kmeans": "kmeans:kmeans",
    "spectral": "spectral:spectral",
    "ncut_regions": "ncut:ncut_regions",
    "felzenszwalb": "felzenszwalb:felzenszwalb",
    "grabcut": "grabcut:grabcut",
}
"""Name -> file of this folder and function in it; only the one that is asked for is imported."""

Method = Callable[..., jax.Array]


def build(name: str, **options) -> Method:
    """The method `name` with its options fixed.

    Args:
        name: of METHODS, or "package.module:function" of your own.
        **options: of that function; see its signature.

    Raises:
        InputError: on an unknown name or option, or a missing one.
    """
    if ":" not in name and name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"config.method.name: unknown {name!r}; known: {', '.join(METHODS)}, or "
            f"package.module:function of your own.{hint}"
        )
    module, _, attribute = METHODS.get(name, name).partition(":")
    module = f"{__name__}.{module}" if name in METHODS else module
    try:
        method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"config.method.name: {name!r} cannot be imported: {error}.") from error
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(method).parameters.items()
        if key not in ("image", "box")
    }
    required = {
        key for key, p in parameters.items()
        if p.default is p.empty and p.kind is p.KEYWORD_ONLY
    }  # fmt: skip
    for problem, keys in (
        ("does not take", options.keys() - parameters.keys()),
        ("needs", required - options.keys()),
    ):
        if keys:
            raise InputError(
                f"config.method: {name} {problem} {', '.join(sorted(keys))}; its options are "
                f"{', '.join(parameters)}."
            )
    return functools.partial(method, **options)


def takes_box(method: Method) -> bool:
    """Whether the method cuts out what a box holds."""
    return "box" in inspect.signature(method).parameters

"""The arrays that functions take: images, label maps, masks and numbers, checked on the way in.

Types and shapes are known while a program is traced, so that a wrong one is refused there, too.
Values are looked at where they are known: in a call outside of `jax.jit` and `jax.vmap`. Inside of
them whoever calls the program vouches for the values.

A form is the shape that is allowed, such as "[H, W, 3] or [5, 6]": a number stands for itself, a
name for a length of 1 or more, "..." for any number of such axes.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from segjax.errors import InputError

Known = np.ndarray | jax.Array
"""An array with a type and a shape: numpy's, or jax's, traced or not."""

PICTURE = "[H, W, 3] or [H, W]"
"""The form of an image; a grey one stands for the image of three equal channels."""

WHITE = 255
"""The largest value of an image, in integers and in floats."""

_INT32 = np.iinfo(np.int32)
_SLACK = 1e-3  # of probabilities, for rounding

Options = ParamSpec("Options")
Result = TypeVar("Result")


def image(
    given: Any,
    name: str = "image",
    form: str = PICTURE,
    *,
    white: int = WHITE,
    inside: Any = None,
) -> jax.Array:
    """An image: uint8, or floats of 0 to 255, which mean the same -> uint8 or float32 [..., 3].

    Other integers are refused: in a program a 16-bit photograph cannot be told from one whose
    values happen to be small. Floats of 0 to 1 are refused where they are known.

    Args:
        given: the argument; a list of whole numbers counts as uint8.
        name: of the argument.
        form: the shapes that are allowed; one without channels is grey and gets three.
        white: the largest value of floats.
        inside: bool, the pixels whose values matter; None: all.

    Raises:
        InputError: in one line that names the argument, what was given and what is allowed.
    """
    x = _read(given, name)
    grey = _fitting(x, name, form) == form.partition(", 3]")[0] + "]"
    if not hasattr(given, "dtype") and x.dtype.kind in "iu":
        _check_range(x, name, 0, WHITE)
        x = x.astype(np.uint8)
    if jnp.issubdtype(x.dtype, jnp.floating):
        _check_white(x, name, white, inside)
    elif x.dtype != np.uint8:
        refuse(name, x.dtype, f"uint8, or floats of 0 to {white}")
    x = _wide(jnp.asarray(x))
    return jnp.broadcast_to(x[..., None], (*x.shape, 3)) if grey else x


def of_image(method: Callable[Options, Result]) -> Callable[Options, Result]:
    """The method with its first argument, `image`, checked before a jitted program begins."""

    @functools.wraps(method)
    def checked(image: Any, **options: Any) -> Result:
        call: Callable[..., Result] = method
        return call(_image(image), **options)

    return checked  # type: ignore[return-value]


_image = image  # `checked` has an argument of this name


def real(given: Any, name: str, form: str) -> Known:
    """Real numbers of any type, not converted, or converted by numpy if they are a list."""
    x = _read(given, name)
    _fitting(x, name, form)
    if not (_whole(x) or jnp.issubdtype(x.dtype, jnp.floating)):
        refuse(name, x.dtype, "integers or floats")
    return x


def numbers(
    given: Any, name: str, form: str, *, least: float = -np.inf, most: float = np.inf
) -> jax.Array:
    """Finite real numbers from `least` to `most` -> float32, or float64 where jax has it."""
    x = jnp.asarray(real(given, name, form))
    x = _wide(x.astype(jnp.float32) if _whole(x) else x)
    values = known(x)
    if values is not None and values.size:
        if not np.isfinite(values).all():
            refuse(name, _first_odd(values), "finite numbers")
        if values.min() < least or values.max() > most:
            span = f"{values.min():g} to {values.max():g}"
            refuse(name, f"values of {span}", f"{least:g} to {most:g}")
    return x


def integers(
    given: Any, name: str, form: str, *, least: int = _INT32.min, most: int = _INT32.max
) -> jax.Array:
    """Whole numbers of any integer type, or booleans, from `least` to `most` -> int32.

    Unknown values beyond int32 become its ends.
    """
    x = whole(given, name, form)
    if x.size:
        _check_range(x, name, least, most)
    return as_int32(x)


def whole(given: Any, name: str, form: str) -> Known:
    """Integers or booleans of any size and value, not converted."""
    x = _read(given, name)
    _fitting(x, name, form)
    if not _whole(x):
        refuse(name, x.dtype, "integers")
    return x


def as_int32(x: Known) -> jax.Array:
    """Integers or booleans as int32; those beyond it become its ends."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind == "u" or x.dtype.itemsize > 4:
            x = np.clip(x, _INT32.min if x.dtype.kind == "i" else 0, _INT32.max)
        return jnp.asarray(x.astype(np.int32))
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) and x.dtype.itemsize >= 4:
        x = jnp.minimum(x, _INT32.max)
    elif x.dtype.itemsize > 4:
        x = jnp.clip(x, _INT32.min, _INT32.max)
    return x.astype(jnp.int32)


def names(given: Any, name: str, form: str) -> jax.Array:
    """Whole numbers that only tell things apart -> int32, equal where the given ones are equal."""
    x = whole(given, name, form)
    if isinstance(x, np.ndarray) and x.dtype.itemsize > 4:
        if x.size and not (_INT32.min <= x.min() and x.max() <= _INT32.max):
            x = np.unique(x, return_inverse=True)[1].reshape(x.shape)
        return jnp.asarray(x.astype(np.int32))
    return jnp.asarray(x).astype(jnp.int32)


def floats(given: Any, name: str, form: str) -> jax.Array:
    """Floats of any type and value, not converted."""
    x = real(given, name, form)
    if _whole(x):
        refuse(name, x.dtype, "floats")
    return jnp.asarray(x)


def probabilities(given: Any, name: str, form: str) -> jax.Array:
    """Floats of 0 to 1 -> float32 or wider."""
    x = _wide(floats(given, name, form))
    values = known(x)
    if values is not None and values.size:
        low, high = values.min(), values.max()
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            refuse(name, f"values of {low:g} to {high:g}", "0 to 1")
    return x


def scores(given: Any, name: str, form: str, *, inside: Sequence[Any] = ()) -> jax.Array:
    """Numbers [..., K] with a softmax: the largest of K is finite -> float32 or wider.

    Args:
        given, name, form: as for `image`.
        inside: masks or None; only the pixels of all of them matter.
    """
    x = jnp.asarray(real(given, name, form))
    x = _wide(x.astype(jnp.float32) if _whole(x) else x)
    values = _inside(x, inside)
    if values is not None and values.size:
        best = values.max(axis=-1)  # nan if any is
        if not np.isfinite(best).all():
            refuse(name, f"a pixel whose largest is {_first_odd(best)}", "a finite largest one")
    return x


def mask(given: Any, name: str, form: str) -> jax.Array:
    """Booleans. Numbers are refused: 255, 1 and 0.5 mean different things to different people."""
    x = _read(given, name)
    _fitting(x, name, form)
    if x.dtype != np.bool_:
        refuse(name, x.dtype, "bool")
    return jnp.asarray(x)


def known(x: Known) -> np.ndarray | None:
    """The values of an array; None where they are not known, as in a traced program."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return None
    values = np.asarray(x)
    return values.astype(np.float32) if values.dtype.itemsize < 4 and not _whole(values) else values


def refuse(name: str, got: object, allowed: str) -> NoReturn:
    """Raises the InputError of an argument."""
    raise InputError(f"{name}: got {got}; allowed: {allowed}.")


def _read(given: Any, name: str) -> Known:
    """The argument as an array of a type that jax can have, if there is one."""
    if isinstance(given, jax.Array):
        return given
    try:
        x = np.asarray(given)
    except (ValueError, TypeError, OverflowError):
        refuse(name, f"a {type(given).__name__} that is no array", "an array")
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def _fitting(x: Known, name: str, form: str) -> str:
    """The one of the forms that the array has."""
    for one in form.split(" or "):
        axes, lengths = [axis for axis in one.strip("[]").split(", ") if axis], list(x.shape)
        if axes[:1] == ["..."]:
            axes = axes[1:]
            axes = [f"axis {k}" for k in range(len(lengths) - len(axes))] + axes
        if len(axes) == len(lengths) and _fits(axes, lengths):
            return one
    empty = ", each at least 1" if 0 in x.shape else ""
    refuse(name, f"shape {tuple(x.shape)}", form + empty)


def _fits(axes: Sequence[str], lengths: Sequence[int]) -> bool:
    named: dict[str, int] = {}
    for axis, length in zip(axes, lengths, strict=True):
        expected = int(axis) if axis.isdigit() else named.setdefault(axis, max(1, length))
        if length != expected:
            return False
    return True


def _whole(x: Known) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == np.bool_)


def _wide(x: jax.Array) -> jax.Array:
    """Floats of 16 bits as float32; others unchanged."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x


def _check_range(x: Known, name: str, least: int, most: int) -> None:
    values = known(x)
    if values is None:
        return
    low, high = int(values.min()), int(values.max())
    if low < least or high > most:
        refuse(name, f"values of {low} to {high}", f"{least} to {most}")


def _check_white(x: Known, name: str, white: int, inside: Any) -> None:
    values = _inside(x, [inside])
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    if not np.isfinite(values).all():
        refuse(name, _first_odd(values), f"floats of 0 to {white}")
    if low < 0 or high > white:
        refuse(name, f"floats of {low:g} to {high:g}", f"0 to {white}")
    if white > 1 and 0 < high <= 1:
        refuse(name, f"floats of {low:g} to {high:g}", f"0 to {white}, not 0 to 1")


def _inside(x: Known, masks: Sequence[Any]) -> np.ndarray | None:
    """The values at the pixels of all masks that are no None; None if they are not known."""
    values, given = known(x), [one for one in masks if one is not None]
    chosen = [there for there in map(known, given) if there is not None]
    if values is None or len(chosen) < len(given):
        return None
    return values[functools.reduce(np.logical_and, chosen)] if chosen else values


def _first_odd(values: np.ndarray) -> str:
    """The first value that is not finite."""
    return str(values[~np.isfinite(values)][0])

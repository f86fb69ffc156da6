"""Class order of weights: score layers of other weights, brought to the classes of a network.

The classes of a network are the order of its score layers. A run, and a file that it was exported
to, keep their names: weights of the same classes in another order are sorted by name, weights of
other classes are refused.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from segjax.errors import InputError
from segjax.models import functional
from segjax.network import Model

_UNNAMED = re.compile(r"class \d+")  # of a data set without classes.txt
_SHOWN = 4


def in_order(
    arrays: Mapping[str, np.ndarray], theirs: Sequence[str] | None, model: Model, *, where: str
) -> dict[str, np.ndarray]:
    """The arrays with every axis of classes in the order of the model's.

    Args:
        arrays: path in the network -> array, of the network's shapes.
        theirs: class names of the weights, in order; None if unknown.
        model: the network that gets them.
        where: the file or folder of the weights, for messages.

    Raises:
        InputError: naming the score layers, if the classes are other ones.
    """
    unchanged = dict(arrays)
    if theirs is None or model.classes is None:
        return unchanged
    ours, names = _plain(model.classes.classes), _plain(theirs)
    if names == ours:
        return unchanged
    axes = {path: found for path, found in class_axes(model).items() if path in arrays}
    if not axes:
        return unchanged
    if any(all(map(_UNNAMED.fullmatch, side)) for side in (names, ours)):
        logging.info("%s: classes without names are taken by their numbers.", where)
        return unchanged
    if not same(theirs, model.classes.classes):
        layers = list(dict.fromkeys(path.rpartition("/")[0] for path in sorted(axes)))
        raise InputError(
            f"{where} is of other classes than the data set: {_only(names, ours)} there, "
            f"{_only(ours, names)} here. Its score layers ({_listed(layers)}) would give other "
            "names to what they know: config.init.skip draws them anew."
        )
    logging.info("%s has the same classes in another order: sorted by their names.", where)
    order = [names.index(name) for name in ours]
    for path, found in axes.items():
        for axis in found:
            unchanged[path] = np.take(unchanged[path], order, axis)
    return unchanged


def same(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether two lists have the same classes, in any order in which they can be told apart."""
    names, others = _plain(theirs), _plain(ours)
    return names == others or (sorted(names) == sorted(others) and len(set(names)) == len(names))


def class_axes(model: Model) -> dict[str, tuple[int, ...]]:
    """Path of each tensor that has axes of classes -> those axes.

    They are the axes that grow by one with one class more.
    """
    larger = dataclasses.replace(model, num_classes=model.num_classes + 1)
    shapes, more = (functional.by_path(*one.shapes()) for one in (model, larger))
    found = {}
    for path, leaf in shapes.items():
        sides = enumerate(zip(leaf.shape, more[path].shape, strict=True))
        axes = tuple(axis for axis, (few, many) in sides if many == few + 1)
        if axes:
            found[path] = axes
    return found


def _plain(names: Sequence[str]) -> list[str]:
    return [" ".join(re.split(r"[\s_-]+", name.casefold().strip())) for name in names]


def _only(names: list[str], others: list[str]) -> str:
    return _listed([name for name in names if name not in others]) or "another number"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")

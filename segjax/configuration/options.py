"""Options of what a config chooses by name, which recipes need not list: their owners and types.

`owner` finds the callable that takes the options of a group of keys, such as `model.backbone`.
`make_room` lets flags set those that the recipe does not list.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from segjax import registry
from segjax.configuration import allowed, keys
from segjax.errors import InputError, near

_BUILT = ("channels", "num_classes", "dtype", "rngs")  # what `models.build` gives to parts


class Owner(NamedTuple):
    """The callable that takes the options of a group.

    Attributes:
        name: as messages name it.
        options: by name.
    """

    name: str
    options: Mapping[str, registry.Option]


def owner(group: str, name: str) -> Owner | None:
    """The callable that takes the options of a group, or None for groups without options.

    Args:
        group: dotted name, such as "model.backbone" or "model.head.norm".
        name: the group's `name`; not looked at where a group has only one owner.

    Raises:
        InputError: if nothing of that name exists.
    """
    found = _find(group, name)
    if found is None:
        return None
    fn, title, given = found
    return Owner(title, registry.options(fn, title, f"config.{group}", given))


def _find(group: str, name: str) -> tuple[Callable, str, Collection[str]] | None:
    # These modules import JAX, which the flags of most commands do not need.
    from segjax import models
    from segjax.models import crf_rnn, multiscale, norms

    def chosen(table: registry.Table, given: Collection[str]) -> tuple:
        return registry.find(table, name, f"config.{group}.name"), name, given

    if group == "model.backbone":
        return chosen(models.BACKBONES, _BUILT)
    if group in ("model.head", "model.aux"):
        return chosen(models.HEADS, _BUILT)
    if group in ("model.backbone.norm", "model.head.norm", "model.aux.norm"):
        return chosen(norms.NORMS, ("features", *_BUILT))
    if group == "model.multi_scale":
        return multiscale.fused, "it", ("network", "x")
    if group == "model.crf":
        return crf_rnn.CRFRNN, "CRF-RNN", _BUILT
    if group == "data":
        from segjax.data import catalog

        return chosen(catalog.CATALOG, ())
    if group == "method":
        from segjax import classical

        return chosen(classical.METHODS, ("image", "box"))
    return None


# Deepest first: a key belongs to the first of these groups that it starts with.
GROUPS = (
    "model.backbone.norm",
    "model.head.norm",
    "model.aux.norm",
    "model.backbone",
    "model.head",
    "model.aux",
    "model.multi_scale",
    "model.crf",
    "method",
    "data",
)


def make_room(config: ml_collections.ConfigDict, given: Mapping[str, str]) -> list[str]:
    """Adds the options that flags set and the recipe does not list, without a value.

    Args:
        config: the recipe; not locked.
        given: dotted key -> text, of the flags in their order.

    Returns:
        The added keys.

    Raises:
        InputError: on an option that its owner does not have, with those that it has.
    """
    added = []
    for key in given:
        group = next((group for group in GROUPS if key.startswith(f"{group}.")), None)
        if group is None or _has(config, key):
            continue
        option = key.removeprefix(f"{group}.")
        parent = _group(config, group)
        name = given.get(f"{group}.name", parent.get("name") or "")
        if option != "name" and not _of_weights(config, given, group, name):
            _check_known(group, name, option)
        parent[option] = ml_collections.config_dict.placeholder(object)
        added.append(key)
    return added


def _of_weights(config: Any, given: Mapping[str, str], group: str, name: str) -> bool:
    """Whether the owner is known only once the weights are read."""
    choice = given.get("init.network", config.get("init", {}).get("network"))
    return choice == "weights" and group.startswith("model.") and not name


def _check_known(group: str, name: str, option: str) -> None:
    found = owner(group, name)
    known = list(found.options) if found else []
    if option.partition(".")[0] not in known or found is None:
        title = found.name if found else group
        raise InputError(
            f"config.{group}: {title} takes no {option!r}; options: "
            f"{', '.join(known) or 'none'}.{near(option, known)}"
        )


def _has(config: Any, key: str) -> bool:
    """Whether a config has a key; a group that is None has none below it."""
    for part in key.split("."):
        if not hasattr(config, "keys") or part not in config:
            return False
        config = config[part]
    return True


def _group(config: ml_collections.ConfigDict, group: str) -> ml_collections.ConfigDict:
    """A group of a config, made where the recipe leaves it out or has None."""
    place = config
    for depth, part in enumerate(group.split("."), 1):
        if not hasattr(place.get(part), "keys"):
            place[part] = ml_collections.ConfigDict(
                _default(config, ".".join(group.split(".")[:depth]))
            )
        place = place[part]
    return place


def _default(config: ml_collections.ConfigDict, group: str) -> Mapping[str, Any]:
    """The group that an owner takes if it is not given, such as the norm of a backbone."""
    parent, _, option = group.rpartition(".")
    if parent not in GROUPS or not _has(config, f"{parent}.name"):
        return {}
    found = owner(parent, config_at(config, parent)["name"])
    default = found.options[option].default if found and option in found.options else {}
    return default if isinstance(default, Mapping) else {}


def config_at(config: ml_collections.ConfigDict, group: str) -> ml_collections.ConfigDict:
    """The group of a dotted name."""
    return functools.reduce(lambda place, part: place[part], group.split("."), config)


def check(config: ml_collections.ConfigDict, added: Collection[str]) -> None:
    """Checks the values of keys that `make_room` added, by the types of their owners' signatures.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    for key in added:
        group = next(group for group in GROUPS if key.startswith(f"{group}."))
        option = key.removeprefix(f"{group}.")
        place = config_at(config, group)
        if isinstance(place[option], list):
            place[option] = tuple(place[option])
        name = place.get("name") or ""
        if option == "name" or "." in option or (not name and group.startswith("model.")):
            continue
        found = owner(group, name)
        if found is None or option not in found.options:
            continue  # the builder says which options there are
        kind = kind_of(found.options[option].annotation)
        if kind and not kind.holds(place[option]):
            value = keys.shown(place[option])
            raise InputError(f"config.{key} is {value}; it must be {kind.words}.")


def kind_of(annotation: Any) -> allowed.Kind | None:
    """The values that a parameter of this type takes; None where the type does not say."""
    simple: dict[Any, allowed.Kind] = {
        bool: allowed.flag(),
        int: allowed.whole(-(2**31)),
        float: allowed.number(),
        str: allowed.text(),
        types.NoneType: allowed.Kind("None", lambda value: value is None),
    }
    if annotation in simple:
        return simple[annotation]
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        kinds = [kind_of(one) for one in typing.get_args(annotation)]
        known = [kind for kind in kinds if kind is not None]
        return allowed.either(*known) if len(known) == len(kinds) else None
    if origin is tuple:
        return _tuples(typing.get_args(annotation))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return allowed.Kind("a group of keys", lambda value: hasattr(value, "keys"))
    return None


def _tuples(kinds: tuple) -> allowed.Kind | None:
    found = [kind_of(one) for one in kinds if one is not ...]
    if not found or any(kind is None for kind in found):
        return None
    known = [kind for kind in found if kind is not None]
    if kinds[-1] is ...:
        return allowed.rows(f"values in brackets, each {known[0].words}", known[0])
    return allowed.row(*known)


def flags_of(words: list[str], name: str) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of the words that set keys of the flag `--name`."""
    for i, word in enumerate(words):
        flag, equals, text = word.partition("=")
        bare = flag.lstrip("-")
        if not word.startswith("-") or not bare.removeprefix("no").startswith(f"{name}."):
            continue
        key = bare.removeprefix("no").removeprefix(f"{name}.").replace("['from']", ".from")
        if not equals and i + 1 < len(words):
            text = words[i + 1]
        yield key, text

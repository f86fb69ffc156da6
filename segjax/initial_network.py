"""The network that weights were made for: a config of it, and how a config's network differs."""

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections

from segjax import registry
from segjax.configuration import keys, options
from segjax.errors import InputError, near
from segjax.models.importers.networks import Network

PARTS = ("backbone", "head", "aux")

# Options that change no number that a network predicts.
_TRAINING = frozenset({"dropout", "drop_maps", "dropped", "dropped_before"})
# Parts that take each other's tensors, as the papers that name them do.
_FAMILIES = ({"vgg16", "vgg16_atrous", "segnet_encoder"}, {"fcn32s", "fcn16s", "fcn8s"})
_EPSILONS = 1e-5  # epsilons this far apart change a norm of variance 1 by 5e-6
# What a file without the tensors that show them is asked for.
_WHOLE = {"vgg16": {"width": 64, "fc_width": 4096}, "googlenet": {"width": 64}}


class Difference(NamedTuple):
    """An option in which a config's network differs from that of the weights.

    Attributes:
        key: dotted name, such as "model.head.align".
        here: the config's value.
        there: the value that the weights were made for.
    """

    key: str
    here: Any
    there: Any


def differences(
    network: Network, model: Mapping[str, Any], loaded: Collection[str]
) -> list[Difference]:
    """The options in which a model differs from the network that weights were made for.

    Args:
        network: of the weights.
        model: `config.model`, as plain data.
        loaded: parts of the model that get tensors: backbone, head, aux.
    """
    found: list[Difference] = []
    for part in PARTS:
        there, here = network.model.get(part), model.get(part)
        if part in loaded and there and here:
            found += _of_part(part, here, there, network.free)
    if "head" in loaded:
        found += _of_scales(model.get("multi_scale"), network.model.get("multi_scale"))
    return found


def _of_part(part: str, here: Mapping, there: Mapping, free: Collection[str]) -> Iterator:
    names = {here["name"], there["name"]}
    if len(names) == 2:
        known = any(names <= family for family in _FAMILIES)
        if not known and ":" not in str(here["name"]):
            yield Difference(f"model.{part}.name", here["name"], there["name"])
        return
    for option, (default, _) in _options(part, here["name"]).items():
        ours, theirs = (side.get(option, default) for side in (here, there))
        if registry.NO_DEFAULT in (ours, theirs) or option in _TRAINING:
            continue
        if f"{part}.{option}" not in free and not _same(option, ours, theirs):
            yield Difference(f"model.{part}.{option}", ours, theirs)


def _options(part: str, name: str) -> Mapping[str, registry.Option]:
    """The options of a part, or of its norm."""
    owner = options.owner(f"model.{part}", name)
    return owner.options if owner else {}


def _of_scales(here: Mapping | None, there: Mapping | None) -> Iterator:
    if not here or not there:
        if here or there:
            yield Difference("model.multi_scale", here or None, there or None)
        return
    for option in here.keys() & there.keys():
        if not _same(option, here[option], there[option]):
            yield Difference(f"model.multi_scale.{option}", here[option], there[option])


def _same(option: str, here: Any, there: Any) -> bool:
    if option == "norm":
        (kind, epsilon), (other, another) = _norm(here), _norm(there)
        return bool(kind == other and abs(epsilon - another) <= _EPSILONS)
    return bool(_plain(here) == _plain(there))


def _norm(norm: Mapping[str, Any]) -> tuple[str, float]:
    """What a norm computes with loaded statistics: "batch" and "frozen" are the same."""
    name = str(norm["name"])
    taken = _options("backbone.norm", name)
    epsilon = norm.get("epsilon", taken["epsilon"].default if "epsilon" in taken else 0.0)
    return "statistics" if name in ("batch", "frozen") else name, epsilon


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def check(
    network: Network,
    model: Mapping[str, Any],
    loaded: Collection[str],
    differs: Sequence[str],
    where: str,
) -> None:
    """Checks that weights go into the network that they were made for.

    Args:
        network, model, loaded: as for `differences`.
        differs: `config.init.differs`: patterns of keys that may differ.
        where: the file and its origin, as errors name them.

    Raises:
        InputError: naming each key that differs, its value, and the value that the weights were
            made for; or a pattern that fits no key of the model.
    """
    known = [*_keys(model), *_keys(network.model)]
    for pattern in differs:
        if not fnmatch.filter(known, pattern):
            raise InputError(
                f"config.init.differs: {pattern!r} fits no option of this network; they are named "
                f"like model.backbone.name.{near(pattern, known)}"
            )
    found = [
        one
        for one in differences(network, model, loaded)
        if not any(fnmatch.fnmatchcase(one.key, pattern) for pattern in differs)
    ]
    if not found:
        return
    told = "; ".join(
        f"config.{one.key} is {keys.shown(one.here)}, theirs {keys.shown(one.there)}"
        for one in found
    )
    names = repr(tuple(one.key for one in found))
    raise InputError(
        f"{where}: these weights were made for another network: {told}. Give this network their "
        "options (--config.init.network=weights gives it all of them), or name what is to differ: "
        f'--config.init.differs="{names}".'
    )


def _keys(model: Mapping[str, Any]) -> Iterator[str]:
    """Dotted names of all options that a model has or could have."""
    for part in PARTS:
        group = model.get(part)
        if group:
            yield f"model.{part}.name"
            yield from (f"model.{part}.{option}" for option in _options(part, group["name"]))
    yield "model.multi_scale"
    yield from (f"model.multi_scale.{option}" for option in ("scales", "align"))


def adopt(config: ml_collections.ConfigDict, network: Network, where: str) -> None:
    """Sets `config.model` to a network; options that the config gives without a name stay.

    Args:
        config: the config.
        network: of the weights.
        where: the file and its origin, as errors name them.

    Raises:
        InputError: if the file does not show enough of its network.
    """
    given = config.model.to_dict()
    model: dict[str, Any] = {"aux": None}
    for name, group in network.model.items():
        model[name] = dict(group) if group else None
        own = given.get(name)
        if model[name] is not None and isinstance(own, Mapping):
            model[name] |= {key: value for key, value in own.items() if key != "name"}
    for name, values in _WHOLE.items():
        if model["backbone"]["name"] == name:
            model["backbone"] = values | model["backbone"]
    for part in PARTS:
        if model.get(part):
            lacking = [
                name
                for name, option in _options(part, model[part]["name"]).items()
                if option.default is registry.NO_DEFAULT and name not in model[part]
            ]
            if lacking:
                raise InputError(
                    f"{where}: lacks the tensors that show the {part}'s {', '.join(lacking)}; name "
                    f"them, such as --config.model.{part}.{lacking[0]}=VALUE, or a whole recipe."
                )
    extra = {key: value for key, value in given.items() if key not in model}
    config.model = ml_collections.ConfigDict(model | extra)


def describe(network: Network) -> str:
    """A network as text, for `weights show`."""
    parts = []
    for name, group in network.model.items():
        if group:
            told = ", ".join(f"{k}={v!r}" for k, v in group.items() if k != "name")
            parts.append(f"{name}: {group.get('name', '')}({told})")
    return "; ".join(parts)

"""The one door for what a config chooses by name: a name of ours or "module:Name", and its options.

`find` gives the callable that a name stands for, `bind` fixes its options after a check against its
signature, `resolve` does both. `parse` and `changed` read presets: "preset, key=value, ...".
"""

import ast
import dataclasses
import functools
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from segjax.errors import InputError, choose, near

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Table = Mapping[str, Callable | str]
"""Name -> callable, or the "module:Name" of one that is imported only when it is asked for."""

Settings = TypeVar("Settings", bound="DataclassInstance")
"""A dataclass, one of whose fields is `name`."""


def find(table: Table, name: str, key: str) -> Callable:
    """The callable that a name stands for.

    Args:
        table: ours.
        name: one of the table's, or "module:Name": `Name` of a module that lies in the folder where
            the command runs, or is installed.
        key: of the config, for messages.

    Raises:
        InputError: naming the key, if there is no such name, or the module cannot be imported.
    """
    if ":" in str(name):
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path:
            sys.path.insert(0, here)  # for good: the module may import others later
        importlib.invalidate_caches()
        return _imported(name, key)
    if name not in table:
        known = ", ".join(table)
        raise InputError(
            f"{key}: unknown {name!r}; known: {known}, or module:Name.{near(name, table)}"
        )
    entry = table[name]
    return _imported(entry, key) if isinstance(entry, str) else entry


def _imported(path: str, key: str) -> Callable:
    """The callable at "module:Name"."""
    place, _, attribute = path.partition(":")
    if not place or not attribute or place.startswith("."):
        raise InputError(f"{key}: {path!r} is not module:Name, such as my_losses:Tversky.")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise InputError(f"{key}: cannot import {path!r}: {_reason(error)}.") from error
    if not hasattr(module, attribute):
        public = [one for one in vars(module) if not one.startswith("_")]
        raise InputError(
            f"{key}: cannot import {path!r}: {place} has no {attribute!r}.{near(attribute, public)}"
        )
    imported: Callable = getattr(module, attribute)
    if not callable(imported):
        raise InputError(f"{key}: {path!r} is a {type(imported).__name__}, which cannot be called.")
    return imported


def _reason(error: Exception) -> str:
    """The error in a module and its place, on one line."""
    if isinstance(error, ModuleNotFoundError | SyntaxError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{text} ({os.path.basename(last.filename)}, line {last.lineno})"


def bind(
    fn: Callable,
    options: Mapping[str, Any],
    key: str,
    *,
    name: str,
    positional: Sequence[str] = (),
    keywords: Sequence[str] = (),
    offered: Mapping[str, Any] | None = None,
) -> Callable:
    """Fixes options of a function, or of a class's constructor, after a check of its signature.

    Args:
        fn: what is called in the end.
        options: by the name of a parameter.
        key: of the options in the config, for messages.
        name: of `fn`, for messages.
        positional: arguments that the call will give by position; messages name them so.
        keywords: arguments that the call will give by keyword.
        offered: settings that `fn` gets if it has a parameter of that name; options come first.

    Returns:
        `fn` with its options fixed.

    Raises:
        InputError: on an option that is unknown or missing, naming those that are known, or if
            `fn` cannot be called with `positional` and `keywords`.
    """
    known = option_names(fn, name, key, positional=positional, keywords=keywords)
    for option in options:
        _choose_option(key, option, [name], known)
    given = {option: value for option, value in (offered or {}).items() if option in known}
    given.update(options)
    missing = [option for option, needed in known.items() if needed and option not in given]
    if missing:
        raise InputError(f"{key}: {name} needs {', '.join(missing)}; {_listed(known)}.")
    return functools.partial(fn, **given)


def resolve(
    table: Table,
    config: Mapping[str, Any],
    key: str,
    *,
    positional: Sequence[str] = (),
    keywords: Sequence[str] = (),
) -> Callable:
    """The callable that `config["name"]` stands for, with the rest of `config` as its options.

    Args:
        table: ours.
        config: `name`, and options.
        key: of `config`, such as "config.model.head".
        positional, keywords: as for `bind`.

    Raises:
        InputError: as `find` and `bind` do.
    """
    options = dict(config)
    name = options.pop("name", "")
    fn = find(table, name, f"{key}.name")
    return bind(fn, options, key, name=name, positional=positional, keywords=keywords)


def deal(
    options: Mapping[str, Any], known: Mapping[str, Iterable[str]], key: str
) -> dict[str, dict[str, Any]]:
    """Deals one dict of options out to several callables; each gets those that it knows.

    Args:
        options: for all of them.
        known: name of each callable -> its options, as from `option_names`.
        key: of the options in the config, for messages.

    Returns:
        Name of each callable -> options.

    Raises:
        InputError: on an option that none of them knows.
    """
    together = [option for names in known.values() for option in names]
    for option in options:
        _choose_option(key, option, list(known), together)
    return {
        name: {option: value for option, value in options.items() if option in names}
        for name, names in known.items()
    }


def option_names(
    fn: Callable,
    name: str,
    key: str,
    *,
    positional: Sequence[str] = (),
    keywords: Sequence[str] = (),
) -> dict[str, bool]:
    """The options of a function or a class: their names, and whether each must be given.

    `*args` and `**kwargs` are no options.

    Args:
        fn, name, key, positional, keywords: as for `bind`.

    Raises:
        InputError: if `fn` cannot be called with `positional` and `keywords`.
    """
    parameters = _parameters(fn, name, key)
    kinds = {parameter.kind for parameter in parameters}
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    by_place = [p for p in named if p.kind is not p.KEYWORD_ONLY][: len(positional)]
    rest = [p for p in named if p not in by_place]
    lacking = (
        [] if inspect.Parameter.VAR_KEYWORD in kinds else set(keywords) - {p.name for p in rest}
    )
    if lacking or (
        len(by_place) < len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds
    ):
        call = ", ".join([*positional, *(f"{word}=..." for word in keywords)])
        raise InputError(f"{key}: {name} is called with ({call}, ...) and does not take that.")
    return {p.name: p.default is p.empty for p in rest if p.name not in keywords}


NO_DEFAULT = inspect.Parameter.empty
"""Default of an option that must be given."""


class Option(NamedTuple):
    """An option of a callable: its default, or NO_DEFAULT, and its type as the signature has it."""

    default: Any
    annotation: Any


def options(fn: Callable, name: str, key: str, given: Collection[str] = ()) -> dict[str, Option]:
    """The options of a function or a class with their defaults and types.

    Args:
        fn, name, key: as for `bind`.
        given: parameters that are no options, because the caller gives them.

    Raises:
        InputError: if `fn` does not say which options it takes.
    """
    return {
        parameter.name: Option(parameter.default, parameter.annotation)
        for parameter in _parameters(fn, name, key)
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in given
    }


def _parameters(fn: Callable, name: str, key: str) -> list[inspect.Parameter]:
    """The parameters of a call of `fn`; a class's are those of its constructor."""
    # mypy warns that a subclass may have another constructor; that of this very class is meant.
    init = fn.__init__ if isinstance(fn, type) else object.__init__  # type: ignore[misc]
    constructor = init is not object.__init__
    try:
        # Not the signature of the class: a metaclass such as that of flax's modules hides it.
        parameters = inspect.signature(init if constructor else fn).parameters.values()
    except (TypeError, ValueError):
        raise InputError(f"{key}: {name} does not say which options it takes.") from None
    return list(parameters)[constructor:]


def _choose_option(key: str, option: str, owners: list[str], known: Iterable[str]) -> None:
    if option not in known:
        take = f"{' and '.join(owners)} take{'s' if len(owners) == 1 else ''}"
        raise InputError(f"{key}: {take} no {option!r}; {_listed(known)}.{near(option, known)}")


def _listed(options: Iterable[str]) -> str:
    return f"options: {', '.join(dict.fromkeys(options)) or 'none'}"


def parse(key: str, text: str) -> tuple[str, dict[str, Any]]:
    """Reads "preset" or "preset, key=value, ...".

    Args:
        key: what is being read, for messages.
        text: values are Python's literals; a word without quotes is a text, and `true`, `false` and
            `none` are what they say.

    Returns:
        The preset's name, and the fields to change in it.

    Raises:
        InputError: on anything else.
    """
    preset, _, rest = text.partition(",")
    try:
        call = ast.parse(f"dict({rest})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("no key")
        given = [word.arg for word in call.keywords]
        twice = next((word for word in given if given.count(word) > 1), None)
        if twice:
            raise InputError(f"{key}: {text!r} gives {twice} twice.")
        changes = {word.arg or "**": _literal(word.value) for word in call.keywords}
    except InputError:
        raise
    except (SyntaxError, ValueError):
        raise InputError(
            f"{key}: {text!r} is not a preset with key=value after it, such as "
            '"preset, key=(713, 713), other=2048".'
        ) from None
    return preset.strip(), changes


_WORDS = {"true": True, "false": False, "none": None}


class _Unquoted(ast.NodeTransformer):
    """Names as texts: a shell takes the quotes away that a literal would need."""

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_WORDS.get(node.id.lower(), node.id))


def _literal(node: ast.expr) -> Any:
    return ast.literal_eval(_Unquoted().visit(node))


def changed(
    key: str, preset: str, changes: Mapping[str, Any], presets: Mapping[str, Settings]
) -> Settings:
    """A preset with changes; its name then has a mark of them, the same for the same changes.

    Raises:
        InputError: on an unknown preset or field.
    """
    choose(key, preset, presets)
    one = presets[preset]
    fields = [field.name for field in dataclasses.fields(one) if field.name != "name"]
    for field in changes:
        choose(key, field, fields)
    changes = {field: value for field, value in changes.items() if getattr(one, field) != value}
    if not changes:
        return one
    mark = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:6]
    return dataclasses.replace(one, name=f"{preset}-{mark}", **changes)

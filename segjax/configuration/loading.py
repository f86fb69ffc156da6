"""Loading of recipes: shipped ones by name, others by path."""

import importlib
import importlib.util
import pathlib
import sys
import traceback
import types

import ml_collections

from segjax.configs import default
from segjax.errors import InputError, near

FOLDER = pathlib.Path(default.__file__).parent
_SHARED = ("__init__", "default")


def shipped() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in _SHARED)


def module(value: str) -> types.ModuleType:
    """Imports the recipe "NAME" or "PATH.py".

    Raises:
        InputError: if it does not exist, with a near match.
    """
    if _is_name(value):
        if value in shipped():
            return importlib.import_module(f"segjax.configs.{value}")
        hint = near(value, shipped())
        raise InputError(
            f"no shipped recipe is called {value!r}; `segjax recipes` lists them.{hint} "
            "Other recipes are given by path, such as my_recipe.py."
        )
    path = pathlib.Path(value)
    if not path.is_file():
        meant = f" The shipped recipe is --config={path.stem}." if path.stem in shipped() else ""
        raise InputError(f"{value} does not exist.{meant}")
    return _load(path)


def load(value: str) -> ml_collections.ConfigDict:
    """The config for "RECIPE[:WORD,...]".

    Raises:
        InputError: if the recipe does not exist, rejects the words, or fails.
    """
    recipe, _, words = value.partition(":")
    recipe_module = module(recipe)
    if not hasattr(recipe_module, "get_config"):
        raise InputError(f"{recipe} has no function get_config.")
    try:
        config = recipe_module.get_config(*[words] if words else [])
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{recipe} failed: {_told(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(f"get_config of {recipe} did not return a ConfigDict.")
    return config


def _is_name(value: str) -> bool:
    return pathlib.Path(value).name == value and not value.endswith(".py")


def _load(path: pathlib.Path) -> types.ModuleType:
    """Imports a file; a shipped recipe is imported under its module name."""
    if path.resolve().parent == FOLDER.resolve():
        return importlib.import_module(f"segjax.configs.{path.stem}")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file.")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses and pickles look a module up by its name
    try:
        spec.loader.exec_module(made)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} cannot be imported: {_told(error)}") from error
    return made


def _told(error: Exception) -> str:
    """An exception of a recipe in one line, with the place where it was raised."""
    hint = ""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "configs":
        hint = " Shipped recipes are imported with `from segjax.configs import ...`."
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}.{hint}"

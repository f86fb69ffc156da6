"""Checks of the options that several losses have."""

from segjax.errors import InputError, choose

CLASSES = ("present", "all")
"""Values of `region_classes`: the classes of an image's truth, or all."""


def check_share(option: str, value: float) -> None:
    """Passes a number from 0 to 1.

    Raises:
        InputError: naming the key of the option, on any other.
    """
    if not 0 <= value <= 1:
        raise InputError(f"config.loss.{option} is 0 to 1, got {value}.")


def check_classes(value: str) -> None:
    """Passes one of CLASSES.

    Raises:
        InputError: on any other.
    """
    choose("config.loss.region_classes", value, CLASSES)

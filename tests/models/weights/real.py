"""The weight files of `$SEGJAX_WEIGHTS`, which not every machine has."""

import os
import pathlib

import pytest

FOLDER = pathlib.Path(os.environ.get("SEGJAX_WEIGHTS", "weights"))


def needs(name: str) -> pytest.MarkDecorator:
    """Skips a test where the file is absent."""
    return pytest.mark.skipif(
        not (FOLDER / name).exists(), reason=f"$SEGJAX_WEIGHTS has no {name} (looked in {FOLDER})"
    )

"""The recipes, which in a checkout lie in its top-level folder `configs`.

An installed segjax has that folder's files in this place.
"""

import pathlib
from typing import TYPE_CHECKING, Any

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]

if TYPE_CHECKING:  # type checkers do not follow the path

    def __getattr__(name: str) -> Any: ...

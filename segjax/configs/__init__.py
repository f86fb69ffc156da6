"""The recipes, which in a checkout lie in its top-level folder `configs`.

An installed segjax has that folder's files in this place.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).parents[2] / "configs")]

"""Things of a run that are closed at its end."""

import abc
from typing import Self

from absl import logging

from segjax.errors import InputError


class Closing(abc.ABC):
    """A context manager that is closed at its end; a refusal then hides no error before it."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the work; InputError if the disk refuses."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except InputError as error:
            if kind is None:
                raise
            logging.error("%s", error)

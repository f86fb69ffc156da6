"""The one exception that is the user's to mend."""

from collections.abc import Collection


class InputError(ValueError):
    """Something given from outside is wrong: a file, a key, a folder, a checkpoint.

    Its text is one line that names the thing and says what is allowed; `cli.run` prints that line
    alone and exits with status 1. Anything else that escapes is a bug and keeps its traceback.
    """


def choose(key: str, value: object, known: Collection) -> None:
    """Passes one of a few allowed values.

    Raises:
        InputError: naming the key, if `value` is not in `known`.
    """
    if value not in known:
        raise InputError(f"{key}: unknown {value!r}; known: {', '.join(map(str, known))}.")

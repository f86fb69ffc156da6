"""The one exception that is the user's to mend, and the hint that goes with it."""

import difflib
from collections.abc import Collection, Iterable


class InputError(ValueError):
    """Something given from outside is wrong: a file, a key, a folder, a checkpoint.

    Its text is one line that names the thing and says what is allowed; `cli.Verb` prints that line
    alone and exits with status 1. Anything else that escapes is a bug and keeps its traceback.
    """


def near(word: object, known: Iterable) -> str:
    """The hint ` Did you mean "..."?` for a mistyped word; "" where no known one is close."""
    matches = difflib.get_close_matches(str(word), [str(one) for one in known], 1)
    return f' Did you mean "{matches[0]}"?' if matches else ""


def choose(key: str, value: object, known: Collection) -> None:
    """Passes one of a few allowed values.

    Raises:
        InputError: naming the key and the near miss, if `value` is not in `known`.
    """
    if value not in known:
        allowed = ", ".join(map(str, known))
        raise InputError(f"{key}: unknown {value!r}; known: {allowed}.{near(value, known)}")

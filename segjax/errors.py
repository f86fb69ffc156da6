"""The one exception that is the user's to mend."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a key, a folder, a checkpoint.

    Its text is one line that names the thing and says what is allowed; `cli.run` prints that line
    alone and exits with status 1. Anything else that escapes is a bug and keeps its traceback.
    """

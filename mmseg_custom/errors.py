"""The one exception that means: the input is wrong, and here is what to do about it."""


class InputError(ValueError):
    """Wrong input from the user: a file, a key or a value.

    The message is one line that names the file or key, what arrived, what was expected and the
    way out. The command-line tools print it without a traceback and exit with code 1.
    """

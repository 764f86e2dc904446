"""The one exception type that a command line shows as a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend: a path, a file, a config key.

    The message is one or two sentences: what is wrong, and what to do. The tools print it and end with exit code 2.
    """

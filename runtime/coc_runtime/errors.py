"""The one exception that users of coc-deploy have to know."""


class CocError(Exception):
    """A mistake in the input: its message says what, where, and what to do, in one line.

    exit_code: of a command that ends with it.
    """

    exit_code = 2

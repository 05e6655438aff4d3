"""Errors that end a stage with one line instead of a traceback."""


class UserError(ValueError):
    """The user's input or parameters are wrong: what was got, what is allowed, how to fix it. Exit code 2."""


class GateError(RuntimeError):
    """The input was right, but a result is not good enough to go on (parity, accuracy, divergence). Exit code 1."""

"""The library by the name under which it is installed: what type checkers take for it in a checkout."""

from models import *  # noqa: F403

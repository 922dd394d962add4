"""The base of every error that a user can mend, and the one place that turns it into a sentence.

A `HarError` says in one sentence what is wrong, the value, what is allowed and what to do next. On
the command line it ends with exit code 2 and no traceback; any other exception is a fault of ours
and keeps its traceback.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]


class HarError(ValueError):
    """A user's mistake, or files that are not as they should be; the text is one sentence.

    Without text it has been said already, by another rank of the same run.
    """


class UserError(click.ClickException):
    """A `HarError` on its way out of a command line: exit code 2."""

    exit_code = 2


def one_sentence(command: Command) -> Command:
    """Decorate a click command: a `HarError` becomes a sentence on standard error, exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HarError as error:
            if not str(error):
                sys.exit(UserError.exit_code)
            raise UserError(str(error)) from error

    return wrapped

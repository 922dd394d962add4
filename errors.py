"""The base of every error that a user can mend, and the one place that turns it into a sentence.

A `HarError` says in one sentence what is wrong, the value, what is allowed and what to do next. On
the command line it ends with exit code 2 and no traceback, and so does a place that the disk or the
system refuses (`_REMEDIES`); any other exception is a fault of ours and keeps its traceback.

A file name on Linux may hold bytes that are no UTF-8. Commands print them as `\\xNN`, and so do the
files that they write (`printable`), instead of ending in a UnicodeEncodeError.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import click

Command = Callable[..., Any]
_FORMAT_WARNING = warnings.formatwarning
_MAKE_ROOM = "free some space, or write to another disk"
_REMEDIES = {  # what the disk or the system may say of a file, none of it a fault of ours
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EFBIG: "write to a disk that takes files of this size, or raise the limit 'ulimit -f'",
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM), "give another place, or mend its permissions"
    ),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR), "give another name"),
    errno.ENAMETOOLONG: "give a shorter name",
}


class HarError(ValueError):
    """A user's mistake, or files that are not as they should be; the text is one sentence.

    Without text it has been said already, by another rank of the same run.
    """


class HarWarning(UserWarning):
    """What the user should know and goes on; commands print the text alone, without our code."""


class UserError(click.ClickException):
    """A `HarError` on its way out of a command line: exit code 2."""

    exit_code = 2


def one_sentence(command: Command) -> Command:
    """Decorate a click command: a `HarError` becomes a sentence on standard error, exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        warnings.formatwarning = _format_warning
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="har-printable")
        try:
            result = command(*args, **kwargs)
            _flush_stdout()
            return result
        except HarError as error:
            if not str(error):
                sys.exit(UserError.exit_code)
            raise UserError(str(error)) from error
        except SystemExit:
            _flush_stdout()
            raise
        except OSError as error:
            _flush_stdout("\n")  # where that fails as well, the fault is standard output's
            remedy = _REMEDIES.get(error.errno or 0)
            if remedy is None or not (error.filename or remedy is _MAKE_ROOM):
                raise
            use = "written" if remedy is _MAKE_ROOM else "used"
            raise UserError(
                f"{error.filename or 'a file'} cannot be {use} ({error.strerror}): {remedy}."
            ) from error

    return wrapped


def suggest(name: str, known: Iterable[str]) -> str:
    """The known names that one which is not known may stand for, as part of a sentence, or ""."""
    near = difflib.get_close_matches(name, list(known), 3)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _format_warning(
    message: Warning | str, category: type[Warning], *where: Any, **line: Any
) -> str:
    if issubclass(category, HarWarning):
        return f"warning: {message}\n"
    return _FORMAT_WARNING(message, category, *where, **line)


def _flush_stdout(text: str = "") -> None:
    """Raise UserError where standard output cannot be written, and BrokenPipeError, which click
    ends quietly, where nobody reads it any more (`har-predict ... | head -1`)."""
    try:
        print(end=text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        with open(os.devnull, "wb") as nowhere:  # what is left of the text must not fail at exit
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise UserError(
            f"standard output cannot be written ({error.strerror}): give it a place with room."
        ) from error


def printable(text: str) -> str:
    """The text of a path as it can be printed and stored anywhere: bytes that are no UTF-8, which
    Python holds as surrogates, become `\\xNN`. The bytes can be told from it again."""
    return text.encode("utf-8", "har-printable").decode()


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Surrogates of bytes as `\\xNN`, other characters as `backslashreplace` does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = [
        f"\\x{ord(char) - 0xDC00:02x}"
        if 0xDC80 <= ord(char) <= 0xDCFF
        else char.encode("ascii", "backslashreplace").decode()
        for char in error.object[error.start : error.end]
    ]
    return "".join(escaped), error.end


codecs.register_error("har-printable", _escape)

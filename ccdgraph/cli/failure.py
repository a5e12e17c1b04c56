"""How commands fail: one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

import typer

BAD_INPUT, INTERRUPTED = 2, 130

Arguments = ParamSpec("Arguments")


def in_one_sentence(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """``command``, ending with 2 on bad input and with 130 on Ctrl-C instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            fail("stopped", INTERRUPTED)
        except BrokenPipeError:  # of `| head`; typer ends quietly
            raise
        except OSError as error:
            fail(_sentence(error), BAD_INPUT)
        except (ValueError, FloatingPointError) as error:
            fail(str(error), BAD_INPUT)

    return wrapped


def fail(message: str, code: int) -> None:
    """Says why on stderr and exits.

    Raises:
        Exit: always.
    """
    typer.echo(" ".join(message.split()), err=True)
    raise typer.Exit(code) from None


def stopped(command: str, begun: Path) -> None:
    """Ends a command that Ctrl-C has stopped, and says how to go on.

    Args:
        command: its name.
        begun: the configuration that it leaves in its folder once it has begun.

    Raises:
        Exit: always.
    """
    words = ["ccdgraph", command, str(begun), "--to", str(begun.parent), "--resume"]
    fail(f"stopped; go on with: {shlex.join(words)}" if begun.exists() else "stopped", INTERRUPTED)


def _sentence(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run again"
    if error.filename is None:
        return error.strerror or str(error)
    return f"'{error.filename}': {error.strerror}"

"""The group that every command hangs on: errors, warnings and interrupts become one line and an exit code."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from bsexport.errors import BsexportError

INTERRUPTED = 130  # what shells make of a Ctrl-C


class Commands(click.Group):
    """A group whose commands end with one line on stderr and exit code 1 on an error that has a name."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a termination signal unwinds it, so that nothing half-made stays behind."""
        from bsexport_runtime.errors import BsexportRuntimeError

        signal.signal(signal.SIGTERM, _terminate)
        try:
            with one_line_warnings():
                return super().invoke(ctx)
        except (BsexportError, BsexportRuntimeError) as error:
            raise click.ClickException(one_line(error)) from error
        except KeyboardInterrupt as stop:
            _say_stopped("Aborted!", stop)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except SystemExit as stop:
            if _notes(stop):
                _say_stopped("Terminated!", stop)
            raise


def _say_stopped(word: str, stop: BaseException) -> None:
    """One line on stderr: the word, and what the run leaves to go on from."""
    above = "\n" if sys.stderr.isatty() else ""  # a line of progress may be there
    click.echo(above + one_line(" ".join([word, *_notes(stop)])), err=True)


def _notes(stop: BaseException) -> list[str]:
    return getattr(stop, "__notes__", [])


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def one_line(message: object) -> str:
    """A message without its line breaks."""
    return " ".join(str(message).split())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Stands in for warnings.showwarning, without the place in the source and the line of code."""
    click.echo(f"Warning: {one_line(message)}", err=True)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _show_warning(record.getMessage())


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Python's warnings, and what bsexport logs, become lines on stderr that begin with "Warning:"."""
    logger, handler = logging.getLogger("bsexport"), _LogLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)

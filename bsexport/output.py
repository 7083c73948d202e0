"""Outputs appear whole or not at all: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from bsexport.errors import OutputError


class Staging:
    """A temporary directory beside `out`; a context manager that removes whatever was not published.

    out: the file or directory that is to appear. force: replace what stands there.
    replaceable: whether force may replace a directory that stands there, so that it never deletes what is foreign.
    path: the temporary directory.
    Raises OutputError if `out` exists and may not be replaced, or the disk is full.
    """

    def __init__(self, out: Path, *, force: bool, replaceable: Callable[[Path], bool]) -> None:
        check_output(out, force=force, replaceable=replaceable)
        self.out = out
        self.path = out.parent / f".{out.name}.{os.getpid()}.partial"

    def __enter__(self) -> Staging:
        with disk_errors(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self.out)
            self.path.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def publish_directory(self) -> None:
        """The temporary directory becomes `out`; an older one steps aside first and is deleted last."""
        old = self.path.with_suffix(".old")
        with disk_errors(self.out):
            for path in self.path.iterdir():
                _sync(path)
            if self.out.exists():
                self.out.rename(old)
            try:
                self.path.rename(self.out)
            except OSError:
                if old.exists():
                    old.rename(self.out)
                raise
            shutil.rmtree(old, ignore_errors=True)

    def publish_files(self) -> None:
        """The files of the temporary directory go to the directory of `out`, `out` itself last."""
        with disk_errors(self.out):
            for path in sorted(self.path.iterdir(), key=lambda path: path.name == self.out.name):
                _sync(path)
                path.replace(self.out.parent / path.name)


def check_output(out: Path, *, force: bool, replaceable: Callable[[Path], bool]) -> None:
    """Raise OutputError unless `out` may be written: nothing is there, or force and something that may go."""
    if not os.path.lexists(out):
        return
    if not force:
        raise OutputError(f"{out}: exists already; choose another place with -o, or replace it with --force")
    if out.is_symlink() or not replaceable(out):
        raise OutputError(
            f"{out}: was not made by this command, so --force does not replace it; choose another place with -o"
        )


@contextlib.contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the output."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise OutputError(f"{out}: cannot be written: {why}; nothing was left behind") from error


def _remove_abandoned(out: Path) -> None:
    """Clean up after a killed run for the same output, whose process no longer exists."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*.*"):
        *_, process, suffix = path.name.split(".")
        if suffix not in ("partial", "old") or not process.isdigit() or _alive(int(process)):
            continue
        if suffix == "old" and not out.exists():
            path.rename(out)  # killed between the two renames: the older output goes back to its place
        else:
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

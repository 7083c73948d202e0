"""Outputs appear whole or not at all: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from bsexport.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: what a killed run left stays until somebody deletes it
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None

PARTIAL = ".partial"
OLD = ".old"
PREFIX_LENGTH = 100  # of the output's name in the temporary one, so that a long name does not become too long


class Staging:
    """A temporary directory beside `out`; a context manager that removes whatever was not published.

    out: the file or directory that is to appear. force: replace what stands there.
    replaceable: whether force may replace what stands there, so that it never deletes what is foreign.
    path: the temporary directory; locked as long as its process lives, so that a later run can tell what to clean up.
    Raises OutputError if `out` exists and may not be replaced, or the disk is full.
    """

    def __init__(self, out: Path, *, force: bool, replaceable: Callable[[Path], bool]) -> None:
        self.out = out
        self._check: Callable[[], None] = partial(check_output, out, force=force, replaceable=replaceable)
        self._made: list[Path] = []
        self._check()

    def __enter__(self) -> Staging:
        with disk_errors(self.out):
            self._made = make_parents(self.out)
            _clean_up(self.out)
            self._check()  # a killed run's older output may have come back
            self.path = self.out.parent / f"{_prefix(self.out)}{secrets.token_hex(4)}{PARTIAL}"
            self.path.mkdir()
            self._lock = take_lock(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
        remove_empty(self._made)

    def publish_directory(self) -> None:
        """The temporary directory becomes `out`; an older one steps aside first and is deleted last."""
        publish_directory(self.path, self.out, self._check)

    def publish_files(self) -> None:
        """The files of the temporary directory go to the directory of `out`, `out` itself last."""
        with disk_errors(self.out):
            self._check()
            for path in sorted(self.path.iterdir(), key=lambda path: path.name == self.out.name):
                _sync(path)
                path.replace(self.out.parent / path.name)


def publish_directory(path: Path, out: Path, check: Callable[[], None]) -> None:
    """Rename a finished directory to `out`, after `check`; an older one steps aside first and is deleted last."""
    old = old_of(path)
    with disk_errors(out):
        for file in path.rglob("*"):
            if file.is_file():
                _sync(file)
        check()  # what came there while this ran is not ours to delete
        if out.exists():
            out.rename(old)
        try:
            path.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)


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


def _prefix(out: Path) -> str:
    return f".{out.name[:PREFIX_LENGTH]}."


def make_parents(out: Path) -> list[Path]:
    """Make the directories that `out` lacks; returns those that were made, the innermost first."""
    missing = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(directories: list[Path]) -> None:
    """Remove those directories in which nothing was published."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def old_of(path: Path) -> Path:
    """Where an older output stands aside while the directory `path` takes its place."""
    return path.with_suffix(OLD)


def take_lock(directory: Path) -> int | None:
    """Lock a directory until the process ends; None if another process has it, or locks are unknown here."""
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clean_up(out: Path) -> None:
    """Remove what killed runs for the same output left: temporary directories that no process has locked."""
    for left in out.parent.glob(glob.escape(_prefix(out)) + "*" + PARTIAL):
        lock = take_lock(left)
        if lock is None:
            continue
        old = old_of(left)
        if old.exists() and not out.exists():
            old.rename(out)  # killed between the two renames: the older output goes back to its place
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

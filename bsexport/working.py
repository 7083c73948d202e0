"""Where a long run works until its output can appear, and what a killed one leaves to go on from.

NAME.partial/ beside the output NAME holds run.json, which says what decides the outcome (a run goes on only under the
same), what a resumed run goes on from, and what it makes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from bsexport.errors import OutputError, ResumeError
from bsexport.output import (
    HAS_LOCKS,
    PARTIAL,
    check_output,
    disk_errors,
    make_parents,
    old_of,
    publish_directory,
    remove_empty,
    take_lock,
)

_RUN = "run.json"


class Working(ABC):
    """The working directory of a run; a context manager. One process of a run enters it, the others use `path`.

    Without `resume` it begins anew, and refuses to if there is something to go on from, unless `force`.
    An exception or a signal leaves that behind; if there is none yet, nothing. An interrupt gets a note that says so.
    replaceable: whether force may replace what stands at `out`.
    command: whose it is, as run.json says. what: what a stopped run leaves to go on from. made: name of the folder to
    be published. others: names of what else it makes, besides run.json and the cache.
    Raises OutputError if `out` exists and may not be replaced, or another process works there.
    """

    command: ClassVar[str]
    what: ClassVar[str]
    made: ClassVar[str]
    others: ClassVar[frozenset[str]]

    def __init__(self, out: Path, *, resume: bool, force: bool, replaceable: Callable[[Path], bool]) -> None:
        if out.name in ("", ".."):
            raise OutputError(f"{out}: is no name for an output; choose another place with -o")
        self.out = out
        self.path = out.with_name(out.name + PARTIAL)
        self._resume, self._force = resume, force
        self._check = partial(check_output, out, force=force, replaceable=replaceable)

    @abstractmethod
    def left(self) -> Iterable[Path]:
        """What is there to go on from."""

    def kept(self) -> Iterable[Path]:
        """What a resumed run keeps of what an earlier one made, besides run.json."""
        return self.left()

    def check(self) -> None:
        """Raise OutputError if the run may not begin, or there is none to resume."""
        self._check()
        if self.path.is_dir() and not self._is_ours():
            raise OutputError(f"{self.path}: was not made by this command; remove it, or choose another place with -o")
        if self._resume and not self.path.is_dir():
            raise OutputError(f"{self.path}: no such folder, so there is no run to resume; leave out --resume")
        if not self._resume and not self._force and any(self.left()):
            raise OutputError(
                f"{self.path}: holds {self.what} of an unfinished run; go on with --resume, or begin anew with --force"
            )

    def __enter__(self) -> Self:
        self._restore()
        self.check()
        with disk_errors(self.out):
            self._parents = make_parents(self.path)
            self.path.mkdir(exist_ok=True)
            self._lock = take_lock(self.path)
            if self._lock is None and HAS_LOCKS:
                raise OutputError(f"{self.path}: another process works there; wait for it or stop it")
            kept = {self.path / _RUN, *self.kept()} if self._resume else set()
            for left in set(self.path.iterdir()) - kept:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (self.out.exists() and error is None) or not any(self.left()):
            shutil.rmtree(self.path, ignore_errors=True)
            remove_empty(self._parents)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            error.add_note(f"{self.path} holds {self.what}: go on with --resume")
        if self._lock is not None:
            os.close(self._lock)

    @property
    def cache(self) -> Path:
        """A folder for data as read and encoded."""
        return self.path / "cache"

    @property
    def output(self) -> Path:
        """The folder to be published."""
        return self.path / self.made

    def begin(self, run: dict[str, Any]) -> None:
        """Write down what decides the outcome, or on resume hold it against what was written.

        Raises ResumeError if they differ.
        """
        run = json.loads(json.dumps({"command": self.command, **run}))
        path = self.path / _RUN
        if self._resume and path.is_file():
            for key, began, now in _differences(json.loads(path.read_text(encoding="utf-8")), run):
                raise ResumeError(
                    f"{self.path}: was begun with {key} {began}, and this run has {now}; "
                    "resume with what it was begun with, or begin anew with --force"
                )
        else:
            with disk_errors(self.out):
                path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")

    def began_with(self, key: str) -> Any:
        """What run.json says under a key; None if there is no run to resume, or nothing under it."""
        path = self.path / _RUN
        if not self._resume or not path.is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8")).get(key)

    def publish(self) -> None:
        """The finished folder becomes the output."""
        publish_directory(self.output, self.out, self._check)

    def digest(self) -> str:
        """The sha256 of run.json."""
        return hashlib.sha256((self.path / _RUN).read_bytes()).hexdigest()

    def _restore(self) -> None:
        """Killed between the two renames that publish: the older output goes back to its place."""
        old = old_of(self.output)
        if old.exists() and not os.path.lexists(self.out):
            with disk_errors(self.out):
                old.rename(self.out)

    def _is_ours(self) -> bool:
        """Whether it is empty, or holds what a run leaves."""
        path = self.path / _RUN
        if not path.is_file():
            return {each.name for each in self.path.iterdir()} <= {self.cache.name, self.made, *self.others}
        try:
            began = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(began, dict) and began.get("command") == self.command


def _differences(began: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: dotted key, and both."""
    if isinstance(began, dict) and isinstance(now, dict):
        for name in [*began, *(name for name in now if name not in began)]:
            yield from _differences(began.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif began != now:
        yield key, began, now

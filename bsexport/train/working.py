"""Where a run works until its output can appear: checkpoints that a killed run is resumed from, and whose they are.

NAME.partial/ beside the output NAME:
    run.json            what decides the weights that come out: a checkpoint goes on only under the same
    checkpoint-STEP/    transformers' own; complete.json in it is written last
    runs/               logs for TensorBoard
    cache/              data as read and encoded
    model/              the finished directory, until it is renamed
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from bsexport.errors import OutputError, TrainError
from bsexport.output import HAS_LOCKS, PARTIAL, check_output, disk_errors, publish_directory, take_lock
from bsexport.train.record import is_trained

_RUN = "run.json"
_COMPLETE = "complete.json"
_CHECKPOINT = "checkpoint-"
_LOGS = "runs"


@dataclass(frozen=True)
class Sealed:
    """A whole checkpoint. step: that it was made after. last: whether it was the run's last."""

    path: Path
    step: int
    last: bool


class Working:
    """The working directory of a run; a context manager. One process of a run enters it, the others use `path`.

    Without `resume` it begins anew, and refuses to if a checkpoint of an unfinished run is there, unless `force`.
    An exception or a signal leaves checkpoints behind; if there is none yet, nothing.
    Raises OutputError if `out` exists and may not be replaced, or another process works there.
    """

    def __init__(self, out: Path, *, resume: bool, force: bool) -> None:
        self.out = out
        self.path = out.with_name(out.name + PARTIAL)
        self._resume, self._force = resume, force
        self._check = partial(check_output, out, force=force, replaceable=is_trained)

    def check(self) -> None:
        """Raise OutputError if the run may not begin, or there is none to resume."""
        self._check()
        if self._resume and not self.path.is_dir():
            raise OutputError(f"{self.path}: no such folder, so there is no run to resume; leave out --resume")
        if not self._resume and not self._force and any(_complete(self.path)):
            raise OutputError(
                f"{self.path}: holds a checkpoint of an unfinished run; go on with --resume, or begin anew with --force"
            )
        if self.path.is_dir() and not self._is_ours():
            raise OutputError(f"{self.path}: was not made by this command; remove it, or choose another place with -o")

    def __enter__(self) -> Working:
        self.check()
        with disk_errors(self.out):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path)
            if self._lock is None and HAS_LOCKS:
                raise OutputError(f"{self.path}: another process is training there; wait for it or stop it")
            kept = {self.path / _RUN, self.path / _LOGS, *_complete(self.path)} if self._resume else set()
            for left in set(self.path.iterdir()) - kept:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (self.out.exists() and error is None) or not any(_complete(self.path)):
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    @property
    def cache(self) -> Path:
        """A folder for data as read and encoded."""
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        """A folder for TensorBoard's logs."""
        return self.path / _LOGS

    @property
    def model(self) -> Path:
        """The folder to be published."""
        return self.path / "model"

    def begin(self, run: dict[str, Any]) -> None:
        """Write down what decides the outcome, or on resume hold it against what was written.

        Raises TrainError if they differ.
        """
        run = json.loads(json.dumps(run))
        path = self.path / _RUN
        if self._resume and path.is_file():
            for key, began, now in _differences(json.loads(path.read_text(encoding="utf-8")), run):
                raise TrainError(
                    f"{self.path}: was begun with {key} {began}, and this run has {now}; "
                    "resume with what it was begun with, or begin anew with --force"
                )
        else:
            path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")

    def last_checkpoint(self) -> Sealed | None:
        """The checkpoint to go on from, if there is one.

        Raises TrainError if it is damaged, or another run's.
        """
        checkpoints = sorted(_complete(self.path), key=_step)
        if not checkpoints:
            return None
        last = checkpoints[-1]
        seal = json.loads((last / _COMPLETE).read_text(encoding="utf-8"))
        if seal["run"] != self._digest():
            raise TrainError(f"{last}: is a checkpoint of another run; remove it, or begin anew with --force")
        for name, size in seal["sizes"].items():
            file = last / name
            if not file.is_file() or file.stat().st_size != size:
                raise TrainError(f"{file}: is missing or truncated; begin anew with --force")
        return Sealed(last, _step(last), seal["last"])

    def complete(self, step: int, *, last: bool) -> None:
        """The checkpoint of this step, maybe the run's last, is whole: seal it, then remove older ones."""
        checkpoint = self.path / f"{_CHECKPOINT}{step}"
        sizes = {
            str(file.relative_to(checkpoint)): file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()
        }
        seal = checkpoint / f"{_COMPLETE}{PARTIAL}"
        seal.write_text(json.dumps({"run": self._digest(), "last": last, "sizes": sizes}), encoding="utf-8")
        seal.rename(checkpoint / _COMPLETE)
        for other in self.path.glob(f"{_CHECKPOINT}*"):
            if other != checkpoint:
                shutil.rmtree(other, ignore_errors=True)

    def open_to_readers(self) -> None:
        """Give the files of the model the permissions that new files have here: safetensors keeps them to the user."""
        os.umask(mask := os.umask(0))
        for file in self.model.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~mask)

    def publish(self) -> None:
        """The finished directory, and the logs in it, becomes the output."""
        if self.logs.is_dir():
            self.logs.rename(self.model / _LOGS)
        publish_directory(self.model, self.out, self._check)

    def _digest(self) -> str:
        return hashlib.sha256((self.path / _RUN).read_bytes()).hexdigest()

    def _is_ours(self) -> bool:
        """Whether it is empty, or holds what a run leaves."""
        return (self.path / _RUN).is_file() or {each.name for each in self.path.iterdir()} <= {"cache", "model", _LOGS}


def _complete(path: Path) -> Iterator[Path]:
    """Checkpoints that were written to their end."""
    return (seal.parent for seal in path.glob(f"{_CHECKPOINT}*/{_COMPLETE}"))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_CHECKPOINT))


def _differences(began: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ: dotted key, and both."""
    if isinstance(began, dict) and isinstance(now, dict):
        for name in [*began, *(name for name in now if name not in began)]:
            yield from _differences(began.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif began != now:
        yield key, began, now

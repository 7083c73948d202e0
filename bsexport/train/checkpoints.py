"""The working directory of a training run: sealed checkpoints that a killed run goes on from.

Besides run.json it holds
    checkpoint-STEP/    transformers' own; complete.json in it is written last
    runs/               logs for TensorBoard
    cache/              data as read and encoded
    model/              the finished directory, until it is renamed
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bsexport.errors import ResumeError
from bsexport.output import PARTIAL
from bsexport.train.record import is_trained
from bsexport.working import Working

_COMPLETE = "complete.json"
_CHECKPOINT = "checkpoint-"
_LOGS = "runs"


@dataclass(frozen=True)
class Sealed:
    """A whole checkpoint. step: that it was made after. last: whether it was the run's last."""

    path: Path
    step: int
    last: bool


class Checkpoints(Working):
    """The working directory of a training run."""

    command: ClassVar = "train"
    what: ClassVar = "a checkpoint"
    made: ClassVar = "model"
    others: ClassVar = frozenset({_LOGS})

    def __init__(self, out: Path, *, resume: bool, force: bool) -> None:
        super().__init__(out, resume=resume, force=force, replaceable=is_trained)

    def left(self) -> Iterator[Path]:
        """Checkpoints that were written to their end."""
        return (seal.parent for seal in self.path.glob(f"{_CHECKPOINT}*/{_COMPLETE}"))

    def kept(self) -> Iterator[Path]:
        """Those, and the logs."""
        yield self.logs
        yield from self.left()

    @property
    def logs(self) -> Path:
        """A folder for TensorBoard's logs."""
        return self.path / _LOGS

    def last_checkpoint(self) -> Sealed | None:
        """The checkpoint to go on from, if there is one.

        Raises ResumeError if it is damaged, or another run's.
        """
        checkpoints = sorted(self.left(), key=_step)
        if not checkpoints:
            return None
        last = checkpoints[-1]
        seal = json.loads((last / _COMPLETE).read_text(encoding="utf-8"))
        if seal["run"] != self.digest():
            raise ResumeError(f"{last}: is a checkpoint of another run; remove it, or begin anew with --force")
        for name, size in seal["sizes"].items():
            file = last / name
            if not file.is_file() or file.stat().st_size != size:
                raise ResumeError(f"{file}: is missing or truncated; begin anew with --force")
        return Sealed(last, _step(last), seal["last"])

    def complete(self, step: int, *, last: bool) -> None:
        """The checkpoint of this step, maybe the run's last, is whole: seal it, then remove older ones."""
        checkpoint = self.path / f"{_CHECKPOINT}{step}"
        sizes = {
            str(file.relative_to(checkpoint)): file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()
        }
        seal = checkpoint / f"{_COMPLETE}{PARTIAL}"
        seal.write_text(json.dumps({"run": self.digest(), "last": last, "sizes": sizes}), encoding="utf-8")
        seal.rename(checkpoint / _COMPLETE)
        for other in self.path.glob(f"{_CHECKPOINT}*"):
            if other != checkpoint:
                shutil.rmtree(other, ignore_errors=True)

    def open_to_readers(self) -> None:
        """Give the files of the model the permissions that new files have here: safetensors keeps them to the user."""
        os.umask(mask := os.umask(0))
        for file in self.output.rglob("*"):
            if file.is_file():
                file.chmod(0o666 & ~mask)

    def publish(self) -> None:
        """The finished directory, and the logs in it, becomes the output."""
        if self.logs.is_dir():
            self.logs.rename(self.output / _LOGS)
        super().publish()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(_CHECKPOINT))

"""Write a package: blobs as they come, then the graphs and the manifest (docs/format.md, sections 1 and 7)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar

from bsexport import __version__
from bsexport.code import Placed
from bsexport.errors import ResumeError
from bsexport.output import disk_errors
from bsexport.working import Working
from bsexport_runtime.format import align
from bsexport_runtime.package import FORMAT, MANIFEST, VERSION, WEIGHTS, seal

COPIED = 1 << 20  # bytes that are copied together
IN_MEMORY = 1 << 24  # bytes of a payload that are not worth a file

_LOG = "tensors.jsonl"


def is_package(path: Path) -> bool:
    """Whether a package stands at the path: what --force may replace."""
    return (path / MANIFEST).is_file()


class Blobs:
    """A file of blobs in the making, a sink (see `code.Sink`); a context manager that closes it.

    path: of the file. end: where it goes on, of one that is there. keep: False keeps the last blob alone, while
    offsets go on as if all were there. Raises OutputError if the disk is full.
    """

    def __init__(self, path: Path, out: Path, *, end: int = 0, keep: bool = True) -> None:
        self._path, self._out, self._keep = path, out, keep
        self._begin, self._end = 0, end
        with disk_errors(out):
            self._file: BinaryIO = path.open("r+b" if end else "w+b")
            self._file.truncate(end)
        self._payload = self._fresh()

    def __enter__(self) -> Blobs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._payload.close()
        with disk_errors(self._out):
            self._file.close()

    def write(self, payload: bytes) -> None:
        """Append to the payload of the next blob."""
        with disk_errors(self._out):
            self._payload.write(payload)

    def discard(self) -> None:
        """Forget that payload."""
        self._payload.close()
        self._payload = self._fresh()

    def finish(self, head: bytes) -> Placed:
        """The payload becomes a blob, behind its head."""
        offset, digest = align(self._end), hashlib.sha256(head)
        with disk_errors(self._out):
            if not self._keep:
                self._file.truncate(0)
                self._begin = self._end
            self._file.seek(self._end - self._begin)
            self._file.write(bytes(offset - self._end))
            self._file.write(head)
            self._payload.seek(0)
            while part := self._payload.read(COPIED):
                digest.update(part)
                self._file.write(part)
            self._file.flush()
            self._end = self._begin + self._file.tell()
        self.discard()
        return Placed(offset, self._end - offset, digest.hexdigest())

    def blob(self, placed: Placed) -> memoryview:
        """The bytes of the blob that was finished last, mapped."""
        place = placed.offset - self._begin
        page = place // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        size = place + placed.nbytes - page
        return memoryview(mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=page))[place - page :]

    def _fresh(self) -> Any:
        """A place for a payload: in memory, or where it is large, in a file without a name beside the other."""
        return tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._path.parent))


class PackageWriter(Working):
    """A package in the making, see `working`; tensors.jsonl there says which tensors are packed.

    out: where the package will stand. force: replace a package that stands there already. resume: go on where a killed
    run left off. Only a kill or an interrupt leaves something: what is refused would be refused again.
    Raises OutputError if it stands there already, cannot be replaced, or the disk is full.
    """

    command: ClassVar = "pack"
    what: ClassVar = "packed tensors"
    made: ClassVar = "package"
    others: ClassVar = frozenset({_LOG})

    def __init__(self, out: Path, *, resume: bool = False, force: bool = False) -> None:
        super().__init__(out, resume=resume, force=force, replaceable=is_package)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, ResumeError):
            self._log.unlink(missing_ok=True)
        super().__exit__(kind, error, trace)

    def left(self) -> Iterator[Path]:
        """The log, if a tensor is in it, after the line with which it begins."""
        if self._log.is_file() and self._log.read_bytes().count(b"\n") > 1:
            yield self._log

    def kept(self) -> Iterator[Path]:
        """The log, and the package as far as it is there."""
        yield self._log
        yield self.output

    @property
    def _log(self) -> Path:
        return self.path / _LOG

    def earlier(self) -> list[dict[str, Any]]:
        """What an earlier run kept: the log's first line, and one for each tensor up to the first that is not whole."""
        lines: list[dict[str, Any]] = []
        text = self._log.read_text(encoding="utf-8") if self._log.is_file() else ""
        for line in text[: text.rfind("\n") + 1].splitlines():
            found = json.loads(line)
            if lines and not _is_whole(self.output / WEIGHTS, found["tensor"]):
                break
            lines.append(found)
        with disk_errors(self.out):
            self._log.write_text("".join(map(_line, lines)), encoding="utf-8")
        return lines

    def blobs(self, end: int) -> Blobs:
        """weights.bsx, which goes on where so many bytes of an earlier run end."""
        with disk_errors(self.out):
            self.output.mkdir(exist_ok=True)
            for path in self.output.iterdir():
                if path.name != WEIGHTS:
                    path.unlink()
        return Blobs(self.output / WEIGHTS, self.out, end=end)

    def keep(self, line: dict[str, Any]) -> None:
        """Append a line to the log: a tensor that is packed, or what comes before the first."""
        with disk_errors(self.out), self._log.open("a", encoding="utf-8") as file:
            file.write(_line(line))

    def add_file(self, source: Path) -> None:
        """Copy a file that the device needs, under its base name."""
        with disk_errors(self.out):
            shutil.copyfile(source, self.output / source.name)

    def finish(self, graphs: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
        """Write the graphs (content by file name) and the manifest, and put the package in its place."""
        directory = self.output
        with disk_errors(self.out):
            for name, content in graphs.items():
                (directory / name).write_bytes(content)
            files = {path.name: _file_entry(path) for path in sorted(directory.iterdir())}
            whole = {
                "format": FORMAT,
                "version": VERSION,
                "producer": f"bsexport {__version__}",
                **manifest,
                "files": files,
            }
            (directory / MANIFEST).write_bytes(seal(whole))
        self.publish()


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _is_whole(weights: Path, tensor: dict[str, Any]) -> bool:
    """Whether a blob stands in the file as the log says."""
    digest, left = hashlib.sha256(), tensor["blob_bytes"]
    with contextlib.suppress(OSError), weights.open("rb") as file:
        file.seek(tensor["offset"])
        while left and (part := file.read(min(COPIED, left))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest() == str(tensor["sha256"])


def _file_entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(COPIED):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}

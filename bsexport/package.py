"""Write a package: blobs as they come, then the graphs and the manifest (docs/format.md, sections 1 and 7)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from bsexport import __version__
from bsexport.output import Staging, disk_errors
from bsexport_runtime.format import align
from bsexport_runtime.package import FORMAT, MANIFEST, VERSION, WEIGHTS, seal


def is_package(path: Path) -> bool:
    """Whether a package stands at the path: what --force may replace."""
    return (path / MANIFEST).is_file()


class BlobPlaces:
    """Where blobs come to lie in weights.bsx. end: bytes so far."""

    def __init__(self) -> None:
        self.end = 0

    def add(self, blob: bytes) -> int:
        """The offset of the next blob."""
        offset = align(self.end)
        self.end = offset + len(blob)
        return offset


class PackageWriter:
    """A package in the making; a context manager that leaves either the whole package or nothing.

    out: where the package will stand. force: replace a package that stands there already.
    Raises OutputError if it stands there already, cannot be replaced, or the disk is full.
    """

    def __init__(self, out: Path, *, force: bool = False) -> None:
        self._staging = Staging(out, force=force, replaceable=is_package)
        self._out = out
        self._weights: BinaryIO
        self._places = BlobPlaces()

    def __enter__(self) -> PackageWriter:
        self._staging.__enter__()
        try:
            with disk_errors(self._out):
                self._weights = (self._staging.path / WEIGHTS).open("wb")
        except BaseException:
            self._staging.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_errors(self._out):
                self._weights.close()
        finally:
            self._staging.__exit__(kind, error, trace)

    def add_blob(self, blob: bytes) -> int:
        """Append a blob to weights.bsx and return its offset."""
        end = self._places.end
        offset = self._places.add(blob)
        with disk_errors(self._out):
            self._weights.write(bytes(offset - end))
            self._weights.write(blob)
        return offset

    def add_file(self, source: Path) -> None:
        """Copy a file that the device needs, under its base name."""
        with disk_errors(self._out):
            shutil.copyfile(source, self._staging.path / source.name)

    def finish(self, graphs: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
        """Write the graphs (content by file name) and the manifest, and put the package in its place."""
        directory = self._staging.path
        with disk_errors(self._out):
            self._weights.close()
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
        self._staging.publish_directory()


def _file_entry(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}

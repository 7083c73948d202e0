"""Open a package: its manifest is checked whole before anything is believed (docs/format.md, sections 1 and 7)."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsexport_runtime import codec
from bsexport_runtime.errors import BlobError, PackageError
from bsexport_runtime.format import DType, Head

FORMAT = "bsexport"
VERSION = 0
MANIFEST = "bsexport.json"
WEIGHTS = "weights.bsx"
CODED_GRAPH = "model.onnx"
PLAIN_GRAPH = "decoded.onnx"
ARENA = "arena.bin"  # the name that the plain graph gives to the decoded arena; no such file exists
ALIGNMENT = 64
MANIFEST_LIMIT = 64 << 20  # bytes; a model with 100,000 tensors stays below it


def align(offset: int) -> int:
    """The next place at which a blob or a tensor of the arena may start."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Tensor:
    """One tensor of a package.

    offset, nbytes: its blob in weights.bsx. arena_offset: its place in the decoded arena, in bytes.
    info: everything that the manifest says of it.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    arena_offset: int
    sha256: str
    info: dict[str, Any]


class Package:
    """An opened package: the checked manifest, and the blobs as read-only views of the mapped file.

    path: the directory. manifest: bsexport.json. tensors: in the order in which they are stored.
    arena_bytes: size of the arena that holds all decoded tensors. files: the name, size and sha256 of every other file.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a package. Raises PackageError if it is incomplete, damaged, foreign or of a newer version."""
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        self.files = _files(self.path, self.manifest)
        self.tensors = tuple(_tensors(self.path, self.manifest))
        last = self.tensors[-1] if self.tensors else None
        self.weights_bytes = last.offset + last.nbytes if last else 0
        self.arena_bytes = _natural(self.manifest, "arena_bytes", self.path / MANIFEST)
        self._weights = _map(self.path / WEIGHTS, self.weights_bytes)
        self._check_arena()

    def blob(self, tensor: Tensor) -> memoryview:
        """The tensor's blob, not copied."""
        return memoryview(self._weights)[tensor.offset : tensor.offset + tensor.nbytes]

    def head(self, tensor: Tensor) -> Head:
        """The checked head of the tensor's blob. Raises PackageError if it is damaged or not the manifest's tensor."""
        try:
            head = codec.parse(self.blob(tensor))
        except BlobError as error:
            raise self.damaged(tensor, error) from error
        if (head.dtype, head.shape) != (tensor.dtype, tensor.shape):
            raise PackageError(
                f"{self.path / WEIGHTS}: tensor {tensor.name} is {head.dtype.name.lower()} {list(head.shape)}, but the "
                f"manifest says {tensor.dtype.name.lower()} {list(tensor.shape)}; copy the package again"
            )
        return head

    def damaged(self, tensor: Tensor, error: BlobError) -> PackageError:
        """The error that says which tensor of which file is damaged, and what to do."""
        return PackageError(f"{self.path / WEIGHTS}: tensor {tensor.name}: {error}; copy the package again")

    def read(self, name: str) -> Path:
        """The path of another file of the package, its size and sha256 checked. Raises PackageError."""
        path = self.path / name
        if name not in self.files:
            raise PackageError(
                f"{self.path / MANIFEST}: lists no file {name}; expected a package made by bsexport pack"
            )
        size, sha256 = self.files[name]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror}; copy the package again") from error
        if len(content) != size or hashlib.sha256(content).hexdigest() != sha256:
            raise PackageError(f"{path}: is not the file that was packed (its sha256 differs); copy the package again")
        return path

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every tensor; yields one line for everything that is wrong."""
        for name in self.files:
            if name != WEIGHTS:
                try:
                    self.read(name)
                except PackageError as error:
                    yield str(error)
        for tensor in self.tensors:
            yield from self._verify_tensor(tensor)
        yield from self._verify_gaps()

    def release(self, tensor: Tensor) -> None:
        """Let the system drop the file pages of the tensor's blob: they are read again if they are needed again."""
        if isinstance(self._weights, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            start = tensor.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._weights.madvise(mmap.MADV_DONTNEED, start, tensor.offset + tensor.nbytes - start)

    def _verify_tensor(self, tensor: Tensor) -> Iterator[str]:
        if hashlib.sha256(self.blob(tensor)).hexdigest() != tensor.sha256:
            yield f"{self.path / WEIGHTS}: tensor {tensor.name}: its sha256 differs from the manifest's"
        try:
            self.head(tensor)
            codec.decode(self.blob(tensor))
        except PackageError as error:
            yield str(error)
        except BlobError as error:
            yield str(self.damaged(tensor, error))
        self.release(tensor)

    def _verify_gaps(self) -> Iterator[str]:
        end = 0
        for tensor in self.tensors:
            if any(memoryview(self._weights)[end : tensor.offset]):
                yield f"{self.path / WEIGHTS}: the bytes before tensor {tensor.name} are not zero"
            end = tensor.offset + tensor.nbytes

    def _check_arena(self) -> None:
        """The arena's size must follow from heads that the blobs themselves bear out, before anything is allocated."""
        end = 0
        for tensor in self.tensors:
            if tensor.arena_offset != align(end):
                raise PackageError(
                    f"{self.path / MANIFEST}: tensor {tensor.name} has arena_offset {tensor.arena_offset}, "
                    f"expected {align(end)}; copy the package again"
                )
            end = tensor.arena_offset + self.head(tensor).nbytes
        if self.arena_bytes != end:
            raise PackageError(
                f"{self.path / MANIFEST}: arena_bytes is {self.arena_bytes}, expected {end}; copy the package again"
            )


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not directory.is_dir():
        raise PackageError(f"{directory}: no such package; expected a directory made by bsexport pack")
    try:
        with path.open("rb") as file:
            content = file.read(MANIFEST_LIMIT + 1)
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}; expected a directory made by bsexport pack") from error
    try:
        manifest = json.loads(content) if len(content) <= MANIFEST_LIMIT else None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackageError(f"{path}: is not a bsexport manifest; expected a directory made by bsexport pack")
    if manifest.get("version") != VERSION:
        raise PackageError(
            f"{path}: has format version {manifest.get('version')!r}, this runtime reads version {VERSION}; "
            "update bsexport-runtime, or pack the model again"
        )
    return manifest


def _files(directory: Path, manifest: dict[str, Any]) -> dict[str, tuple[int, str]]:
    where = directory / MANIFEST
    entries = _typed(manifest, "files", dict, where)
    for name, entry in entries.items():
        if not name or name in (".", "..") or "/" in name or "\\" in name or not isinstance(entry, dict):
            raise PackageError(f"{where}: has the file name {name!r}, expected a plain name; copy the package again")
    return {
        name: (_natural(entry, "bytes", where), _typed(entry, "sha256", str, where)) for name, entry in entries.items()
    }


def _tensors(directory: Path, manifest: dict[str, Any]) -> Iterator[Tensor]:
    where = directory / MANIFEST
    end = 0
    names: set[str] = set()
    for entry in _typed(manifest, "tensors", list, where):
        if not isinstance(entry, dict):
            raise PackageError(
                f"{where}: a tensor is {type(entry).__name__}, expected an object; copy the package again"
            )
        tensor = _tensor(entry, where)
        if tensor.name in names:
            raise PackageError(f"{where}: names tensor {tensor.name} twice; copy the package again")
        if tensor.offset != align(end):
            raise PackageError(
                f"{where}: tensor {tensor.name} has offset {tensor.offset}, expected {align(end)}; "
                "copy the package again"
            )
        names.add(tensor.name)
        end = tensor.offset + tensor.nbytes
        yield tensor


def _tensor(entry: dict[str, Any], where: Path) -> Tensor:
    dtype = _typed(entry, "dtype", str, where).upper()
    if dtype not in DType.__members__:
        raise PackageError(f"{where}: has the dtype {dtype.lower()}, which is unknown; copy the package again")
    shape = _typed(entry, "shape", list, where)
    return Tensor(
        name=_typed(entry, "name", str, where),
        dtype=DType[dtype],
        shape=tuple(_natural({"shape": dim}, "shape", where) for dim in shape),
        offset=_natural(entry, "offset", where),
        nbytes=_natural(entry, "bytes", where),
        arena_offset=_natural(entry, "arena_offset", where),
        sha256=_typed(entry, "sha256", str, where),
        info=entry,
    )


def _typed(entry: dict[str, Any], key: str, kind: type, where: Path) -> Any:
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise PackageError(
            f"{where}: {key} is {'missing' if value is None else type(value).__name__}, expected {kind.__name__}; "
            "copy the package again"
        )
    return value


def _natural(entry: dict[str, Any], key: str, where: Path) -> int:
    value: int = _typed(entry, key, int, where)
    if not 0 <= value < 1 << 62:
        raise PackageError(f"{where}: {key} is {value}, expected a size; copy the package again")
    return value


def _map(path: Path, size: int) -> mmap.mmap | bytes:
    try:
        found = path.stat().st_size
        if found != size:
            raise PackageError(f"{path}: has {found} bytes, the manifest says {size}; copy the package again")
        if size == 0:
            return b""  # a mapping cannot be empty
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}; copy the package again") from error

"""Open a package: its manifest is checked whole before anything is believed (docs/format.md, sections 1 and 7)."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from bsexport_runtime import codec
from bsexport_runtime.errors import BlobError, PackageError
from bsexport_runtime.fields import AGAIN, natural, printable, refuse, typed
from bsexport_runtime.format import DType, Head, align
from bsexport_runtime.int8 import Int8Form, read_form

FORMAT = "bsexport"
VERSION = 0
MANIFEST = "bsexport.json"
WEIGHTS = "weights.bsx"
CODED_GRAPH = "model.onnx"
PLAIN_GRAPH = "decoded.onnx"
INT8_GRAPH = "int8.onnx"  # on request
GRAPHS = (CODED_GRAPH, PLAIN_GRAPH, INT8_GRAPH)
ENCODER = "encoder_"  # how the names of an encoder-decoder's other graphs begin: those above are its decoder's
GRAPH_FILES = tuple(prefix + name for prefix in ("", ENCODER) for name in GRAPHS)
ARENA = "arena.bin"  # the name that the plain and the int8 graph give to their arena; no such file exists
VERIFIED = 1 << 20  # weights that are decoded together to check them
MANIFEST_LIMIT = 64 << 20  # bytes; a model with 100,000 tensors stays below it

_SEAL = b',\n "sha256": "'
_END = b'"\n}\n'
_DTYPES = {dtype.name.lower(): dtype for dtype in DType}


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The content of bsexport.json: `manifest` as JSON, and the sha256 of all of it as the last field.

    Raises ValueError if a number is not finite: JSON has no such.
    """
    body = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}").encode()
    return _sealed(body)


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
    arena_bytes: size of the arena that holds all decoded tensors. files: the size and sha256 of every other file.
    int8: how the weights lie in memory in mode int8; None if it was packed without.
    graphs: how the names of its graph files begin: "", and of an encoder-decoder ENCODER.
    weights.bsx must stay as it is while it is open: cutting a mapped file short ends the process.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a package. Raises PackageError if it is incomplete, damaged, foreign or of a newer version."""
        self.path = Path(path)
        self.manifest = _read_manifest(self.path)
        where = self.path / MANIFEST
        self.files = dict(_files(self.manifest, where))
        self.tensors = tuple(_tensors(self.manifest, where))
        self.arena_bytes = natural(self.manifest, "arena_bytes", where)
        last = self.tensors[-1] if self.tensors else None
        self._weights = _map(self.path / WEIGHTS, last.offset + last.nbytes if last else 0)
        self._heads = {tensor.name: self._parse(tensor) for tensor in self.tensors}
        self._check_arena()
        self.int8: Int8Form | None = None
        if "int8" in self.manifest:
            self.int8 = read_form(typed(self.manifest, "int8", dict, where), list(self._heads.items()), where)
            if INT8_GRAPH not in self.files:
                refuse(where, f"has the field int8, but lists no file {INT8_GRAPH}")
        has_encoder = any(ENCODER + name in self.files for name in GRAPHS)
        self.graphs = ("", ENCODER) if has_encoder else ("",)

    def blob(self, tensor: Tensor) -> memoryview:
        """The tensor's blob, not copied."""
        return memoryview(self._weights)[tensor.offset : tensor.offset + tensor.nbytes]

    @property
    def mapping(self) -> mmap.mmap | None:
        """All of weights.bsx, read-only; None if it is empty."""
        return self._weights if isinstance(self._weights, mmap.mmap) else None

    def head(self, tensor: Tensor) -> Head:
        """The head of the tensor's blob, which was checked when the package was opened."""
        return self._heads[tensor.name]

    def damaged(self, tensor: Tensor, error: BlobError) -> PackageError:
        """The error that says which tensor of which file is damaged, and what to do."""
        return PackageError(f"{self.path / WEIGHTS}: tensor {printable(tensor.name)}: {error}; {AGAIN}")

    def read_bytes(self, name: str) -> bytes:
        """The content of another file of the package, its size and sha256 checked. Raises PackageError."""
        path = self.path / name
        if name not in self.files:
            raise PackageError(
                f"{self.path / MANIFEST}: lists no file {printable(name)}; expected a package made by bsexport pack"
            )
        size, sha256 = self.files[name]
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno()).st_size
                content = file.read() if found == size else b""
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror}; {AGAIN}") from error
        if found != size:
            raise PackageError(f"{path}: has {found} bytes, the manifest says {size}; {AGAIN}")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise PackageError(f"{path}: is not the file that was packed (its sha256 differs); {AGAIN}")
        return content

    def read(self, name: str) -> Path:
        """The path of another file of the package, its size and sha256 checked. Raises PackageError."""
        self.read_bytes(name)
        return self.path / name

    def verify(self) -> Iterator[str]:
        """Check every checksum and decode every tensor; yields one line for everything that is wrong."""
        for name in self.files:
            if (
                name != WEIGHTS
            ):  # its blobs and the gaps between them are checked one by one, to say where it is damaged
                try:
                    self.read_bytes(name)
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

    def _parse(self, tensor: Tensor) -> Head:
        try:
            head = codec.parse(self.blob(tensor))
        except BlobError as error:
            raise self.damaged(tensor, error) from error
        if (head.dtype, head.shape) != (tensor.dtype, tensor.shape):
            where = f"{self.path / WEIGHTS}: tensor {printable(tensor.name)}"
            found = f"{head.dtype.name.lower()} {list(head.shape)}"
            expected = f"{tensor.dtype.name.lower()} {list(tensor.shape)}"
            raise PackageError(f"{where} is {found}, but the manifest says {expected}; {AGAIN}")
        return head

    def _check_arena(self) -> None:
        """The arena's size must follow from heads that the blobs themselves bear out, before anything is allocated."""
        end = 0
        where = self.path / MANIFEST
        for tensor in self.tensors:
            if tensor.arena_offset != align(end):
                found = f"tensor {printable(tensor.name)} has arena_offset {tensor.arena_offset}"
                refuse(where, f"{found}, expected {align(end)}")
            end = tensor.arena_offset + self.head(tensor).nbytes
        if self.arena_bytes != end:
            refuse(where, f"arena_bytes is {self.arena_bytes}, expected {end}")

    def _verify_tensor(self, tensor: Tensor) -> Iterator[str]:
        if hashlib.sha256(self.blob(tensor)).hexdigest() != tensor.sha256:
            where = f"{self.path / WEIGHTS}: tensor {printable(tensor.name)}"
            yield f"{where}: its sha256 differs from the manifest's; {AGAIN}"
        head = self.head(tensor)
        together = max(1, VERIFIED // (head.block_rows * head.block_cols))
        places = [head.first_weight(block) for block in range(0, head.blocks, together)]
        try:
            for begin, end in pairwise([*places, head.weights]):
                codec.decode_part(self.blob(tensor), begin, end)
        except BlobError as error:
            yield str(self.damaged(tensor, error))
        self.release(tensor)

    def _verify_gaps(self) -> Iterator[str]:
        end = 0
        for tensor in self.tensors:
            if any(memoryview(self._weights)[end : tensor.offset]):
                where = f"the bytes before tensor {printable(tensor.name)}"
                yield f"{self.path / WEIGHTS}: {where} are not zero; {AGAIN}"
            end = tensor.offset + tensor.nbytes


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    expected = "expected a directory made by bsexport pack"
    if not directory.is_dir():
        raise PackageError(f"{directory}: no such package; {expected}")
    try:
        with path.open("rb") as file:
            content = file.read() if os.fstat(file.fileno()).st_size <= MANIFEST_LIMIT else b""
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}; {expected}") from error
    manifest = _parse_json(content)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackageError(f"{path}: is not a bsexport manifest; {expected}")
    version = manifest.get("version")
    if type(version) is not int or version != VERSION:
        raise PackageError(
            f"{path}: has format version {version!r:.20}, this runtime reads version {VERSION}; "
            "update bsexport-runtime, or pack the model again"
        )
    if _sealed(content.rpartition(_SEAL)[0]) != content:
        refuse(path, "was changed since the package was made (its sha256 differs)")
    return manifest


def _parse_json(content: bytes) -> Any:
    """The value of a JSON text, or None if it is none: not UTF-8, NaN, a key twice in an object, nested too deep."""
    try:
        value = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
        if b"\\u" in content:  # half a surrogate pair can be written like this, but is no character
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"JSON has no {text}")


def _sealed(body: bytes) -> bytes:
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def _files(manifest: dict[str, Any], where: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    for name, entry in typed(manifest, "files", dict, where).items():
        if not _plain(name) or not isinstance(entry, dict):
            refuse(where, f"has the file {name!r}, expected a plain name, its bytes and its sha256")
        yield name, (natural(entry, "bytes", where), typed(entry, "sha256", str, where))


def _plain(name: str) -> bool:
    """Whether a file's name stays in its directory and on one line."""
    return name not in ("", ".", "..") and not any(c in "/\\:" or unicodedata.category(c) == "Cc" for c in name)


def _tensors(manifest: dict[str, Any], where: Path) -> Iterator[Tensor]:
    end = 0
    names: set[str] = set()
    for entry in typed(manifest, "tensors", list, where):
        if not isinstance(entry, dict):
            refuse(where, f"a tensor is {type(entry).__name__}, expected an object")
        tensor = _tensor(entry, where)
        if "\0" in tensor.name:
            refuse(where, f"the name of tensor {printable(tensor.name)} has a zero in it")
        if tensor.name in names:
            refuse(where, f"names tensor {printable(tensor.name)} twice")
        if tensor.offset != align(end):
            refuse(where, f"tensor {printable(tensor.name)} has offset {tensor.offset}, expected {align(end)}")
        names.add(tensor.name)
        end = tensor.offset + tensor.nbytes
        yield tensor


def _tensor(entry: dict[str, Any], where: Path) -> Tensor:
    dtype = typed(entry, "dtype", str, where)
    if dtype not in _DTYPES:
        refuse(where, f"has the dtype {dtype!r:.40}, expected one of section 2 of the format, such as 'float32'")
    shape = typed(entry, "shape", list, where)
    return Tensor(
        name=typed(entry, "name", str, where),
        dtype=_DTYPES[dtype],
        shape=tuple(natural({"shape": dim}, "shape", where) for dim in shape),
        offset=natural(entry, "offset", where),
        nbytes=natural(entry, "bytes", where),
        arena_offset=natural(entry, "arena_offset", where),
        sha256=typed(entry, "sha256", str, where),
        info=entry,
    )


def _map(path: Path, size: int) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise PackageError(f"{path}: has {found} bytes, the manifest says {size}; {AGAIN}")
            if size == 0:
                return b""  # a mapping cannot be empty
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}; {AGAIN}") from error

"""The errors of the runtime: each message is one line."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What can be wrong with a blob (docs/format.md, section 9). The C library uses the same numbers."""

    OK = 0
    TRUNCATED = 1
    TRAILING_BYTES = 2
    BAD_MAGIC = 3
    BAD_VERSION = 4
    BAD_LAYOUT = 5
    BAD_DTYPE = 6
    BAD_SHAPE = 7
    BAD_BLOCKS = 8
    BAD_CODE = 9
    BAD_STEP = 10
    BAD_RESERVED = 11
    HEAD_CRC = 12
    BAD_CODEBOOK = 13
    BAD_INDEX = 14
    BLOCK_CRC = 15
    BAD_STREAM = 16
    BAD_ARGUMENT = 17


class BsexportRuntimeError(Exception):
    """Base of every error that the runtime raises on purpose."""


class BlobError(BsexportRuntimeError):
    """A blob is damaged, foreign, or of a version that this runtime does not read.

    status: which rule of docs/format.md it breaks. block: the number of the damaged block, if it is one block.
    """

    def __init__(self, status: Status, message: str, block: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.block = block


class PackageError(BsexportRuntimeError):
    """A package directory is incomplete, damaged, foreign or of a newer version."""


class BackendError(BsexportRuntimeError):
    """The native library is required (BSEXPORT_REQUIRE_NATIVE=1) but absent, or does not fit this runtime."""

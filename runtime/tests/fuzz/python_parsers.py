"""Fuzz the Python parsers by hand: `python python_parsers.py blob|manifest CORPUS_DIRECTORY [libFuzzer options]`.

blob: any bytes, with their checksums made true so that the rest is reached, through the numpy backend; its answer must
be that of the oracle. manifest: any bytes as a bsexport.json, as they are and with a true seal, and the package opened.
Nothing but BlobError and PackageError may come out. Needs atheris. Good corpora are runtime/tests/vectors/valid and
invalid with -max_len=512, and runtime/tests/package/bsexport.json with -max_len=8192.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

import atheris

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
MOST_WEIGHTS = 1 << 12  # the oracle is slow

with atheris.instrument_imports(include=["bsexport_runtime"]):
    from bsexport_runtime import codec, package
    from bsexport_runtime.errors import BlobError, PackageError

import reference_decoder  # noqa: E402 - not instrumented: it is the oracle

CODER = codec.numpy_codec()


def fuzz_blob(data: bytes) -> None:
    """The numpy backend and the oracle say the same of a blob whose checksums are true."""
    blob = with_true_checksums(data)
    try:
        expected: bytes | int = reference_decoder.Decoded(blob).data if small(blob) else 0
    except reference_decoder.RefusedError as refused:
        expected = int(refused.args[0])
    try:
        head = CODER.parse(blob)
        if head.weights > MOST_WEIGHTS:
            return
        out = bytearray(head.nbytes)
        CODER.decode_into([blob], [out])
    except BlobError as error:
        found: bytes | int = int(error.status)
    else:
        found = bytes(out)
    assert found == expected or not small(blob), (found, expected)


def small(blob: bytes) -> bool:
    """Whether what the blob says of its size is within what the oracle decodes in no time."""
    if len(blob) < 48 or not 1 <= blob[8] <= 8 or len(blob) < 48 + 8 * blob[8]:
        return True
    weights = 1
    for dim in struct.unpack_from(f"<{blob[8]}Q", blob, 48):
        weights *= dim
    return weights <= MOST_WEIGHTS


def with_true_checksums(data: bytes) -> bytes:
    """The blob with the CRCs of its head and its blocks as they should be, as far as its fields tell where they are."""
    blob = bytearray(data)
    if not small(data) or len(blob) < 112 or blob[6] > 3 or not 1 <= blob[8] <= 8 or blob[44] not in (2, 4):
        return data
    rows, cols = struct.unpack_from("<Q", blob, 48)[0], 1
    for dim in struct.unpack_from(f"<{blob[8] - 1}Q", blob, 56):
        cols *= dim
    block_rows, block_cols, codebook_bytes = struct.unpack_from("<3I", blob, 20)
    if not (1 <= block_rows <= rows and 1 <= block_cols <= cols):
        return data
    layout, width = blob[6], blob[44]
    counts, letter = 3 if layout == reference_decoder.RL else 1, {2: "H", 4: "I"}[width]
    entry = 48 + 8 * blob[8] + codebook_bytes
    sizes = [
        min(block_rows, rows - row) * min(block_cols, cols - col)
        for row in range(0, rows, block_rows)
        for col in range(0, cols, block_cols)
    ]
    place = -(-(entry + len(sizes) * (counts * width + 4)) // 64) * 64
    head_end = place
    if head_end > len(blob):
        return data
    for size in sizes:
        bitmap = -(-size // 8) if layout == reference_decoder.BM else 0
        end = place + sum(struct.unpack_from(f"<{counts}{letter}", blob, entry)[:2]) + bitmap
        entry += counts * width + 4
        struct.pack_into("<I", blob, entry - 4, reference_decoder.crc32c(bytes(blob[place:end])))
        place = end
    blob[40:44] = bytes(4)
    blob[40:44] = struct.pack("<I", reference_decoder.crc32c(bytes(blob[:head_end])))
    return bytes(blob)


def fuzz_manifest(data: bytes) -> None:
    """Opening a package whose manifest is anything ends in a package or a PackageError."""
    for content in (data, sealed(data)):
        (FOLDER / package.MANIFEST).write_bytes(content)
        try:
            opened = package.Package(FOLDER)
            for tensor in opened.tensors:
                opened.head(tensor)
        except PackageError as error:
            assert "\n" not in str(error)


def sealed(data: bytes) -> bytes:
    """The content with its seal, if it has one, made true."""
    body, seal, _ = data.rpartition(b',\n "sha256": "')
    return package._sealed(body) if seal else data


def main() -> None:
    target = {"blob": fuzz_blob, "manifest": fuzz_manifest}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        (FOLDER / package.WEIGHTS).write_bytes((TESTS / "package" / package.WEIGHTS).read_bytes())
        main()

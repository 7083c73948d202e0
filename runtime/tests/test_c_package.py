"""The package reader of libbsx beside the one in Python: the same packages are refused, for the same reasons."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from make_package import PACKAGE, weights
from test_package import FILES, HALF_A_PAIR, LIES, Manifest, add_encoder, rewrite, wrong

from bsexport_runtime.errors import BackendError
from bsexport_runtime.package import MANIFEST_LIMIT

NATIVE = Path(__file__).parents[1] / "native"
OK, MEMORY, NO_PACKAGE, VERSION, MANIFEST, DAMAGED = 0, 2, 4, 5, 6, 7


class Error(ctypes.Structure):
    """bsx_error of bsx_package.h."""

    _fields_ = [("code", ctypes.c_int), ("status", ctypes.c_int), ("message", ctypes.c_char * 1024)]


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    try:
        from bsexport_runtime import native
    except BackendError as error:
        if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
            raise
        pytest.skip(f"C PACKAGE READER NOT TESTED: {error}")
    library = ctypes.CDLL(native._lib._name)
    library.bsx_package_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(Error)]
    library.bsx_package_verify.argtypes = [ctypes.c_void_p, ctypes.POINTER(Error)]
    library.bsx_package_close.argtypes = [ctypes.c_void_p]
    library.bsx_package_arena_bytes.argtypes = [ctypes.c_void_p]
    library.bsx_package_arena_bytes.restype = ctypes.c_uint64
    library.bsx_package_decode_all.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.POINTER(Error),
    ]
    return library


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


def test_an_encoder_decoder_is_opened_and_verified(library: ctypes.CDLL, copy: Path) -> None:
    add_encoder(copy)
    assert examine(library, copy).code == OK
    assert wrong(copy) == []
    graph = copy / "encoder_model.onnx"
    graph.write_bytes(graph.read_bytes()[::-1])
    found = examine(library, copy)
    assert found.code == DAMAGED
    assert b"encoder_model.onnx" in found.message


def examine(library: ctypes.CDLL, package: Path) -> Error:
    """What opening and verifying a package in C ends in."""
    error, handle = Error(), ctypes.c_void_p()
    if library.bsx_package_open(os.fsencode(package), ctypes.byref(handle), ctypes.byref(error)) == OK:
        library.bsx_package_verify(handle, ctypes.byref(error))
        library.bsx_package_close(handle)
    assert (error.message == b"") == (error.code == OK)
    assert b"\n" not in error.message
    error.message.decode()
    return error


def write_sealed(package: Path, body: bytes) -> None:
    """Write a manifest that is any bytes, and then the right seal."""
    digest = hashlib.sha256(body).hexdigest().encode()
    (package / "bsexport.json").write_bytes(body + b',\n "sha256": "' + digest + b'"\n}\n')


def check_same(library: ctypes.CDLL, package: Path) -> Error:
    """Both refuse it or both accept it; where Python knows a reason of its own, it is that of C."""
    lines, error = wrong(package), examine(library, package)
    assert bool(lines) == (error.code != OK), (lines, error.message)
    if lines:
        assert ("is not a bsexport manifest" in lines[0]) == (b"is not a bsexport manifest" in error.message)
        assert ("has format version" in lines[0]) == (error.code == VERSION), (lines, error.message)
    return error


def test_a_sound_package(library: ctypes.CDLL) -> None:
    assert examine(library, PACKAGE).code == OK
    handle, error = ctypes.c_void_p(), Error()
    assert library.bsx_package_open(os.fsencode(PACKAGE), ctypes.byref(handle), None) == OK
    arena = ctypes.create_string_buffer(library.bsx_package_arena_bytes(handle))
    assert library.bsx_package_decode_all(handle, arena, len(arena), ctypes.byref(error)) == OK
    library.bsx_package_close(handle)
    for (name, expected), offset in zip(weights().items(), (0, 76800, 90624, 90944), strict=True):
        assert arena.raw[offset : offset + expected.nbytes] == expected.tobytes(), name


@pytest.mark.parametrize("lie", [lie for lie, _ in LIES], ids=[message for _, message in LIES])
def test_the_same_lies_are_refused(library: ctypes.CDLL, copy: Path, lie: Callable[[Manifest], Any]) -> None:
    rewrite(copy, lie)
    assert check_same(library, copy).code != OK
    assert b"; copy the package again" in examine(library, copy).message


@pytest.mark.parametrize("name", FILES)
def test_the_same_files_are_missed(library: ctypes.CDLL, copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    for other in (b"", content[:1], content[: len(content) // 2], content[:-1], content + b"\0", content + content):
        (copy / name).write_bytes(other)
        assert name.encode() in check_same(library, copy).message
    (copy / name).unlink()
    assert f"{name}: No such file or directory".encode() in check_same(library, copy).message
    (copy / name).mkdir()
    assert f"{name}: Is a directory".encode() in check_same(library, copy).message


FOREIGN = [
    b"", b"{}", b"[]", b"7", b'"format"', b'{"format": "other"}', b'{"format": ["bsexport"]}', b"\xff\xfe",
    b"[" * 100_000, b'{"format": NaN}', HALF_A_PAIR, b'\xef\xbb\xbf{"format": "bsexport"}', b'{"format": "bsexport",}',
    b'{"format": "bsexport", "format": "bsexport", "version": 0}', b'{"format": "bsexport"} x',
    b'{"format": "bsexport", "x": 01}', b'{"format": "bsexport", "x": -Infinity}', b'{"format": "bsexport", "x": "\t"}',
    b'{"format": "bsexport", "x": 1' + b"0" * 4300 + b"}", b'{"format": "bsexport", "x": "\xed\xa0\x80"}',
]  # fmt: skip


@pytest.mark.parametrize("content", FOREIGN, ids=lambda content: repr(content[:60]))
def test_the_same_texts_are_no_manifests(library: ctypes.CDLL, copy: Path, content: bytes) -> None:
    (copy / "bsexport.json").write_bytes(content)
    assert check_same(library, copy).code == NO_PACKAGE


@pytest.mark.parametrize("version", [1, 10**30, "1", None, False, 0.0, [0]])
def test_the_same_versions_are_refused(library: ctypes.CDLL, copy: Path, version: Any) -> None:
    (copy / "bsexport.json").write_text(json.dumps({"format": "bsexport", "version": version, "other": {}}))
    assert check_same(library, copy).code == VERSION


def test_the_same_unusual_manifests_are_accepted(library: ctypes.CDLL, copy: Path) -> None:
    """Fields that are unknown pass, whatever JSON is in them, and names of any script."""
    odd = {"a\u2028b": 1e308, "": [{}, [], None, True], "digits": 10**4000, "n": "x" * 9000, "deep": [[[[["\0"]]]]]}

    def change(manifest: Manifest) -> None:
        manifest.update(odd)
        manifest["tensors"][1]["name"] = "слой.\U0001f600\n\u00a0"
        manifest["files"]["config\u00a0.json"] = manifest["files"].pop("config.json")

    rewrite(copy, change)
    (copy / "config.json").rename(copy / "config\u00a0.json")
    assert check_same(library, copy).code == OK
    manifest = json.loads((copy / "bsexport.json").read_bytes())
    del manifest["sha256"]
    otherwise = json.dumps(manifest, ensure_ascii=True).replace(": ", "\t:\r\n ").removesuffix("}")
    write_sealed(copy, otherwise.encode())
    assert check_same(library, copy).code == OK


def test_any_damage_means_the_same(library: ctypes.CDLL, copy: Path) -> None:
    """Bytes of the manifest changed at random and sealed again: most is no JSON, some is a lie, some is believed."""
    draw = random.Random(20)
    body = (PACKAGE / "bsexport.json").read_bytes()[:-82]
    codes = set()
    for _ in range(1500):
        changed = bytearray(body)
        for _ in range(draw.choice((1, 1, 2, 3))):
            place = draw.randrange(len(changed))
            if draw.random() < 0.5:
                changed[place] = draw.choice(b'0123456789-.eE"\\{}[],: nulltruefalse\x00\x7f\xc3\xff')
            else:
                del changed[place : place + draw.choice((1, 1, 2, 20))]
        write_sealed(copy, bytes(changed))
        codes.add(check_same(library, copy).code)
    assert codes >= {OK, NO_PACKAGE, MANIFEST}


def in_little_memory(library: ctypes.CDLL, package: Path) -> int:
    """What opening a package in C ends in, in a process that has 64 MiB of private memory for it."""
    script = """
import ctypes, resource, sys
library = ctypes.CDLL(sys.argv[1])
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(data.split()[1]) * 1024 + 64 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(library.bsx_package_open(sys.argv[2].encode(), ctypes.byref(ctypes.c_void_p()), None))
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("NOT TESTED: memory limits need Linux")
    command = [sys.executable, "-c", script, library._name, str(package)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_many_small_values_take_little_memory(library: ctypes.CDLL, copy: Path) -> None:
    """They must not become a tree of them, and of the tensors only sound ones take memory."""
    write_sealed(copy, b'{"format":"bsexport","version":0,"files":{},"tensors":[' + b"0," * (16 << 20) + b"0]")
    assert in_little_memory(library, copy) == MANIFEST
    keys = ",".join(f'"{i * 7919 % 1000003:07}":0' for i in range(500_000))
    (copy / "bsexport.json").write_text('{"format":"bsexport","version":1,"files":{' + keys + "}}")
    assert in_little_memory(library, copy) == VERSION
    with (copy / "bsexport.json").open("wb") as file:
        file.truncate(MANIFEST_LIMIT + 1)
    assert in_little_memory(library, copy) == NO_PACKAGE
    (copy / "bsexport.json").write_bytes(b" " * MANIFEST_LIMIT)
    assert in_little_memory(library, copy) == MEMORY


def test_the_headers_are_those_of_c_and_of_cpp(tmp_path: Path) -> None:
    if shutil.which("cc") is None or shutil.which("c++") is None:
        pytest.skip("HEADERS NOT COMPILED: no C or no C++ compiler")
    for header in ("bsx.h", "bsx_package.h"):
        for compiler, name, standard in (("cc", "a.c", "c99"), ("c++", "a.cpp", "c++11"), ("c++", "a.cpp", "c++17")):
            (tmp_path / name).write_text(f'#include "{header}"\n#include "{header}"\nint main() {{ return 0; }}\n')
            flags = [f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{NATIVE}"]
            subprocess.run([compiler, *flags, "-c", tmp_path / name, "-o", tmp_path / "a.o"], check=True)


def test_the_codes_are_those_of_the_header(library: ctypes.CDLL) -> None:
    enum = (NATIVE / "bsx_package.h").read_text().split("typedef enum bsx_error_code")[1].split("}")[0]
    numbers = re.findall(r"BSX_ERROR_([A-Z_]+) = (\d+)", enum)
    assert [int(number) for _, number in numbers] == list(range(len(numbers)))
    library.bsx_error_name.restype = ctypes.c_char_p
    assert [library.bsx_error_name(number).decode() for number in range(len(numbers) + 1)] == [
        *(name for name, _ in numbers),
        "UNKNOWN",
    ]

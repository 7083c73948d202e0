"""Sessions from C: the numbers of Python's, without Python; what is refused, and by which name."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from c_programs import EXAMPLE, NATIVE, build_example, classify, install, needs_compiler, onnxruntime_folder
from make_package import PACKAGE, outputs
from test_package import rewrite

from bsexport_runtime import load, residency

IN_PLACE = tuple(int(part) for part in ort.__version__.split(".")[:2]) >= (1, 31)
PAGE = Path(__file__).parents[2] / "docs" / "c-api.md"
IDS = np.array([[0, 11, 399], [7, 7, 123]])
MODES = ("float32", "coded")

pytestmark = needs_compiler
in_place = pytest.mark.skipif(not IN_PLACE, reason=f"C SESSIONS NOT TESTED: onnxruntime {ort.__version__} is too old")


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxruntime_folder(tmp_path_factory.mktemp("c") / "onnxruntime")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install` installs."""
    return install(tmp_path_factory.mktemp("c") / "prefix")


@pytest.fixture(scope="module")
def sessions(onnxruntime: Path, prefix: Path) -> Path:
    """native/tests/sessions.c, built."""
    return build_sessions(onnxruntime, prefix / "lib" / "libbsx.a", "-O1")


def build_sessions(onnxruntime: Path, *parts: str | Path) -> Path:
    program = onnxruntime / f"sessions{len(parts)}"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE}"]
    linked = [f"-L{onnxruntime}", "-lonnxruntime", f"-Wl,-rpath,{onnxruntime}", "-lm"]
    command = ["cc", *flags, NATIVE / "tests" / "sessions.c", *parts, *linked, "-o", program]
    subprocess.run([str(part) for part in command], check=True)
    return program


def said(sessions: Path, package: Path, mode: str) -> str:
    """The error, name and message, that a session of the package ends in."""
    done = subprocess.run([str(sessions), "run", str(package), mode], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    return line


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "package"))


@in_place
@pytest.mark.parametrize("mode", MODES)
def test_the_numbers_are_those_of_python(sessions: Path, mode: str) -> None:
    done = subprocess.run([str(sessions), "run", str(PACKAGE), mode], capture_output=True, check=True)
    scores = np.frombuffer(done.stdout, np.float32).reshape(2, 3, 40)
    np.testing.assert_allclose(scores, outputs(IDS), rtol=0, atol=1e-5)
    python = "float32" if residency.MODES[mode].missing() else mode  # the runtime may have been installed without coded
    np.testing.assert_allclose(scores, load(PACKAGE, mode=python).run(None, {"ids": IDS})[0], rtol=0, atol=1e-6)


@in_place
def test_arguments_versions_lifetimes_and_growth(sessions: Path) -> None:
    done = subprocess.run([str(sessions), "check", str(PACKAGE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all checks of sessions passed\n"), done.stderr


@in_place
def test_the_same_under_sanitizers(onnxruntime: Path) -> None:
    sanitize = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    try:
        program = build_sessions(onnxruntime, *sanitize, *sorted(NATIVE.glob("*.c")))
    except subprocess.CalledProcessError:
        pytest.skip("C SESSIONS NOT TESTED under sanitizers: this compiler has none")
    done = subprocess.run([str(program), "check", str(PACKAGE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all checks of sessions passed\n"), done.stderr


@pytest.mark.skipif(IN_PLACE, reason="this onnxruntime uses the weights in place")
@pytest.mark.parametrize("mode", MODES)
def test_an_onnxruntime_that_copies_is_refused(sessions: Path, mode: str) -> None:
    assert said(sessions, PACKAGE, mode).startswith(f"ONNXRUNTIME_VERSION: onnxruntime {ort.__version__} would copy")


@in_place
@pytest.mark.parametrize(("mode", "graph"), [("float32", "decoded.onnx"), ("coded", "model.onnx")])
def test_graphs_that_are_refused(sessions: Path, copy: Path, mode: str, graph: str) -> None:
    content = (copy / graph).read_bytes()
    (copy / graph).write_bytes(content[:-1] + b"x")
    assert said(sessions, copy, mode) == (
        f"DAMAGED: {copy / graph}: is not the file that was packed (its sha256 differs); copy the package again"
    )
    (copy / graph).write_bytes(b"no graph")
    entry = {"bytes": 8, "sha256": hashlib.sha256(b"no graph").hexdigest()}
    rewrite(copy, lambda manifest: manifest["files"].update({graph: entry}))
    line = said(sessions, copy, mode)
    assert re.match(
        rf"ONNXRUNTIME: {copy}: onnxruntime {re.escape(ort.__version__)} refuses its {graph}: .*protobuf", line
    )
    (copy / graph).unlink()
    assert said(sessions, copy, mode) == f"FILE: {copy / graph}: No such file or directory; copy the package again"
    rewrite(copy, lambda manifest: manifest["files"].pop(graph))
    assert said(sessions, copy, mode) == (
        f"MANIFEST: {copy}/bsexport.json: lists no file {graph}; expected a package made by bsexport pack"
    )


@in_place
def test_a_damaged_block_is_named(sessions: Path, copy: Path) -> None:
    content = bytearray((copy / "weights.bsx").read_bytes())
    content[2112] ^= 1
    (copy / "weights.bsx").write_bytes(content)
    expected = f"BLOB: {copy}/weights.bsx: tensor table: block 1 of 2: BLOCK_CRC; copy the package again"
    assert said(sessions, copy, "float32") == expected


@in_place
@pytest.mark.parametrize("static", [False, True])
def test_the_example(onnxruntime: Path, prefix: Path, tmp_path: Path, static: bool) -> None:
    program = build_example(prefix, onnxruntime, tmp_path / "classify", static=static)
    scores = np.exp(outputs(np.array([[0, 11, 399]])).ravel())
    for mode in MODES:
        np.testing.assert_allclose(classify(program, PACKAGE, mode, [0, 11, 399]), scores / scores.sum(), atol=2e-6)
    done = subprocess.run(
        [str(program), str(tmp_path / "none"), "coded", "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/none: no such package; expected a directory made by bsexport pack\n"
    assert subprocess.run([str(program)], capture_output=True, check=False).returncode == 2
    done = subprocess.run([str(program), str(PACKAGE), "int8", "7"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "the mode is float32 or coded\n")


def test_what_is_installed(prefix: Path) -> None:
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    assert files == {
        *("include/bsx.h", "include/bsx_ops.h", "include/bsx_package.h", "lib/libbsx.a", "lib/libbsx.so"),
        "lib/pkgconfig/libbsx.pc",
    }
    text = (prefix / "lib" / "pkgconfig" / "libbsx.pc").read_text()
    assert f"prefix={prefix}\n" in text
    assert "\nVersion: 0.1.0\n" in text
    if shutil.which("pkg-config") is None:
        pytest.skip("libbsx.pc NOT TESTED: no pkg-config")
    command = ["pkg-config", "--cflags", "--libs", "libbsx"]
    environment = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig"), "PATH": "/usr/bin:/bin"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert found == [f"-I{prefix}/include", f"-L{prefix}/lib", "-lbsx"]


def test_the_page_says_what_the_header_and_the_example_say() -> None:
    page = PAGE.read_text()
    assert f"```c\n{EXAMPLE.read_text()}```\n" in page
    header = (NATIVE / "bsx_package.h").read_text()
    functions = re.findall(r"BSX_API [\w *]+?\b(bsx_\w+)\(", header)
    assert len(functions) == 13
    assert all(f"### `{name}`" in page for name in functions)
    codes = re.findall(r"(BSX_ERROR_[A-Z_]+) = (\d+)", header)
    assert all(f"| {number} | `{name}` |" in page for name, number in codes)

"""The examples that run a coded graph in plain onnxruntime, from Python, C and C++."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from make_package import PACKAGE, outputs

import bsexport_runtime
from bsexport_runtime import BackendError

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
IDS = [0, 11, 399, 7]
LANGUAGES = {"c": ("cc", "coded.c", ["-std=c99"]), "c++": ("c++", "coded.cpp", ["-std=c++17"])}
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]

try:
    LIBRARY = bsexport_runtime.ops_library()
except BackendError as error:
    if os.environ.get("BSEXPORT_REQUIRE_NATIVE", "") == "1":
        raise
    pytest.skip(f"NOT TESTED: {error}", allow_module_level=True)


@pytest.fixture(scope="module")
def onnxruntime_for_c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a C program wants it: onnxruntime's library by its usual names, and a header."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    found = sorted((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("NOT TESTED: this onnxruntime comes without a library for C")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found[0])
    # Wheels bring no header; ours has the slots that the examples use, under the same names.
    shutil.copy(ROOT / "runtime" / "native" / "ort.h", folder / "onnxruntime_c_api.h")
    return folder


def build(language: str, onnxruntime: Path, out: Path) -> Path:
    compiler, source, standard = LANGUAGES[language]
    if shutil.which(compiler) is None:
        pytest.skip(f"NOT TESTED: there is no {compiler}")
    places = [f"-I{onnxruntime}", f"-L{onnxruntime}", f"-Wl,-rpath,{onnxruntime}"]
    command = [compiler, *standard, *WARNINGS, str(EXAMPLES / source), *places, "-lonnxruntime", "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def check(command: list[str]) -> None:
    """The command prints what the weights' formulas say, and says in one line what it cannot run."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.array(done.stdout.split(), np.float32).reshape(1, len(IDS), 40)
    np.testing.assert_allclose(found, outputs(np.array([IDS])), rtol=0, atol=1e-5)
    done = subprocess.run([*command, "400"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "index 400 is out of bounds, expected -400 to 399" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_compiled_program(language: str, onnxruntime_for_c: Path, tmp_path: Path) -> None:
    program = build(language, onnxruntime_for_c, tmp_path / "coded")
    check([str(program), str(PACKAGE), LIBRARY, "ids", "scores", *map(str, IDS)])
    done = subprocess.run([str(program), str(PACKAGE), "/no/libbsx.so", "ids", "scores", "1"], capture_output=True)
    assert done.returncode == 1
    assert b"/no/libbsx.so" in done.stderr


def test_a_python_program() -> None:
    check([sys.executable, str(EXAMPLES / "coded.py"), str(PACKAGE), "ids", "scores", *map(str, IDS)])
    done = subprocess.run([sys.executable, str(EXAMPLES / "coded.py"), str(PACKAGE)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "usage: coded.py PACKAGE INPUT OUTPUT ID...\n")

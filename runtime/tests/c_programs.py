"""C programs on libbsx and on the onnxruntime of this Python: what a device without Python would build and run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort
import pytest

RUNTIME = Path(__file__).parents[1]
NATIVE = RUNTIME / "native"
EXAMPLE = RUNTIME.parent / "examples" / "classify.c"

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="C PROGRAMS NOT TESTED: no C compiler")


def onnxruntime_folder(out: Path) -> Path:
    """A folder for -I and -L: the library of the wheel under the names that linkers look for, and a header.

    ONNXRUNTIME_INCLUDE names a folder with onnxruntime's own onnxruntime_c_api.h, which is no part of the wheel;
    without it, our header of the same ABI stands in.
    """
    found = sorted((Path(ort.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not found:
        pytest.skip("C PROGRAMS NOT TESTED: this onnxruntime has no libonnxruntime.so")
    out.mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (out / name).symlink_to(found[0])
    header = out / "onnxruntime_c_api.h"
    if folder := os.environ.get("ONNXRUNTIME_INCLUDE"):
        header.symlink_to(Path(folder, header.name).resolve())
    else:
        header.write_text(f'#include "{NATIVE / "ort.h"}"\n#define ORT_API_VERSION BSX_ORT_SESSION_API\n')
    return out


def install(out: Path) -> Path:
    """`make install` to `out`, built there too."""
    make = ["make", "-s", "-C", str(NATIVE), f"BUILD={out}-build", f"PREFIX={out}", "CFLAGS=-O2", "install"]
    subprocess.run(make, check=True, capture_output=True, text=True)
    return out


def build_example(prefix: Path, onnxruntime: Path, out: Path, *, static: bool = False) -> Path:
    """Build examples/classify.c against an installed libbsx, as it says itself."""
    library = [str(prefix / "lib" / "libbsx.a")] if static else [f"-L{prefix}/lib", "-lbsx", f"-Wl,-rpath,{prefix}/lib"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include", f"-isystem{onnxruntime}"]
    linked = [*library, f"-L{onnxruntime}", "-lonnxruntime", f"-Wl,-rpath,{onnxruntime}", "-lm"]
    subprocess.run(["cc", *flags, str(EXAMPLE), *linked, "-o", str(out)], check=True)
    return out


def classify(program: Path, package: Path, mode: str, ids: list[int]) -> list[float]:
    """The probabilities that the example prints."""
    command = [str(program), str(package), mode, *map(str, ids)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    return [float(row[1]) for row in rows]

"""Build the runtime's wheels: python runtime/wheels.py DIRECTORY.

One for Linux on each processor of COMPILERS, cross-compiled where that is another one, and one without the library for
any other machine, which decodes in numpy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILERS = {"x86_64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}  # Debian's names
SOURCES = Path(__file__).parent
NOT_SOURCES = shutil.ignore_patterns("build", "tests", "*.egg-info", "*.so", "__pycache__")


def build_wheels(directory: Path) -> list[Path]:
    """Build all wheels into `directory`; returns their paths. Exits with one line if one cannot be built."""
    for compiler in COMPILERS.values():
        if shutil.which(compiler) is None:
            sys.exit(f"{compiler} is not installed; on Debian it comes with gcc-{compiler.removesuffix('-gcc')}")
    directory.mkdir(parents=True, exist_ok=True)
    wheels = [build_wheel(directory, compiler, processor) for processor, compiler in COMPILERS.items()]
    return [*wheels, build_wheel(directory, "false")]


def build_wheel(directory: Path, compiler: str, processor: str | None = None) -> Path:
    """Build the wheel for Linux on a processor, or without one the wheel without the library."""
    host = {} if processor is None else {"_PYTHON_HOST_PLATFORM": f"linux-{processor}"}
    ending = "-none-any.whl" if processor is None else f"_{processor}.whl"
    with tempfile.TemporaryDirectory() as scratch:
        sources, made = Path(scratch, "runtime"), Path(scratch, "wheels")
        shutil.copytree(SOURCES, sources, ignore=NOT_SOURCES)
        command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", made, sources]
        done = subprocess.run(command, env={**os.environ, **host, "CC": compiler}, capture_output=True, text=True)
        wheels = list(made.glob(f"*{ending}"))
        if done.returncode or len(wheels) != 1:
            sys.exit(f"{done.stdout}{done.stderr}\nno wheel for {processor or 'any machine'} came out of it")
        return Path(shutil.move(wheels[0], directory / wheels[0].name))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python runtime/wheels.py DIRECTORY")
    for wheel in build_wheels(Path(sys.argv[1])):
        print(f"{wheel}  {wheel.stat().st_size:,} bytes")

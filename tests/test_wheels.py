"""The wheels that `make wheels` builds: their tags, what is in them, and that each installs and decodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from bsexport_runtime import __version__

RUNTIME = Path(__file__).parents[1] / "runtime"
NAME = f"bsexport_runtime-{__version__}"
LIBRARY = "bsexport_runtime/libbsx.so"
LIBRARY_BYTES = 150_000
INSTALLED_BYTES = 400_000  # without numpy and onnxruntime
GLIBC = "manylinux_2_17"  # 2014: what is older is not supported by pip on 64-bit ARM either
MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine of the ELF header

DECODE = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from bsexport_runtime import codec
blob = Path(sys.argv[1]).read_bytes()
print(json.dumps([codec.backend(), codec.decode(blob).tolist()]))
"""


def wheel_tags(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as wheel:
        metadata = wheel.read(f"{NAME}.dist-info/WHEEL").decode()
    return re.findall(r"^Tag: (.*)$", metadata, re.MULTILINE)


def test_there_is_one_for_each_machine(wheels: dict[str, Path]) -> None:
    tags = {name: f"py3-none-{GLIBC}_{name}" for name in MACHINES} | {"any": "py3-none-any"}
    assert {path.name for path in wheels.values()} == {f"{NAME}-{tag}.whl" for tag in tags.values()}
    assert {name: wheel_tags(path) for name, path in wheels.items()} == {name: [tag] for name, tag in tags.items()}


def test_each_holds_the_package_and_nothing_else(wheels: dict[str, Path]) -> None:
    modules = {f"bsexport_runtime/{path.name}" for path in (RUNTIME / "src" / "bsexport_runtime").glob("*.py")}
    for name, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            files = {file for file in wheel.namelist() if ".dist-info/" not in file}
            assert files == modules | {"bsexport_runtime/py.typed"} | ({LIBRARY} if name in MACHINES else set())
            assert sum(info.file_size for info in wheel.infolist()) < INSTALLED_BYTES
            assert any(file.endswith("/licenses/LICENSE") for file in wheel.namelist())


@pytest.mark.parametrize("machine", MACHINES)
def test_the_library_is_of_its_machine_small_and_stripped(wheels: dict[str, Path], machine: str) -> None:
    with zipfile.ZipFile(wheels[machine]) as wheel:
        library = wheel.read(LIBRARY)
    assert library[:6] == b"\x7fELF\2\1"
    assert int.from_bytes(library[18:20], "little") == MACHINES[machine]
    assert len(library) < LIBRARY_BYTES
    assert b".symtab" not in library and b".debug_info" not in library


@pytest.mark.parametrize("machine", MACHINES)
def test_auditwheel_agrees_on_the_tag(wheels: dict[str, Path], machine: str) -> None:
    pytest.importorskip("auditwheel", reason="NOT TESTED: pip install auditwheel")
    command = [sys.executable, "-m", "auditwheel", "show", wheels[machine]]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f'platform tag: "{GLIBC}_{machine}"' in " ".join(shown.split())


def installed(wheel: Path, folder: Path) -> Path:
    """The Python of a fresh environment that has the wheel, and numpy and onnxruntime from here."""
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(command, check=True)
    import numpy

    (site / "here.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize("name", ["x86_64", "any"])
def test_it_installs_and_decodes(wheels: dict[str, Path], tmp_path: Path, name: str) -> None:
    if name == "x86_64" and (os.uname().machine, sys.platform) != ("x86_64", "linux"):
        pytest.skip("NOT TESTED: the x86_64 wheel, on another machine")
    python = installed(wheels[name], tmp_path / "env")
    worked_example = RUNTIME / "tests" / "vectors" / "valid" / "worked_example.bsxb"
    command = [python, "-P", "-c", DECODE, worked_example]
    unset = ("PYTHONPATH", "BSEXPORT_REQUIRE_NATIVE")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    backend, weights = json.loads(done.stdout)
    assert backend.startswith("native: libbsx" if name == "x86_64" else "numpy (no native library: ")
    assert weights == [[0, 0, 0, 0.25, 0], [0, -0.25, 0, 0, 0], [0, 0, 0.5, 0, 0.25]]


LOADER = """
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (library == NULL) return fprintf(stderr, "%s\\n", dlerror()), 1;
    uint32_t (*crc)(const void *, size_t);
    const char *(*name)(void);
    *(void **)&crc = dlsym(library, "bsx_crc32c");
    *(void **)&name = dlsym(library, "bsx_crc32c_name");
    return printf("%08x %s\\n", crc("123456789", 9), name()) < 0;
}
"""


def test_the_library_for_arm_loads_and_counts(wheels: dict[str, Path], tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("NOT TESTED: the aarch64 library, since qemu-aarch64-static is not installed")
    with zipfile.ZipFile(wheels["aarch64"]) as wheel:
        library = wheel.extract(LIBRARY, tmp_path)
    (tmp_path / "loader.c").write_text(LOADER)
    command = ["aarch64-linux-gnu-gcc", tmp_path / "loader.c", "-o", tmp_path / "loader"]
    subprocess.run(command, check=True)
    command = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", tmp_path / "loader", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("e3069283 armv8\n", 0), done.stderr

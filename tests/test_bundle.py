"""bsexport bundle: what is in the folder, that it installs without a network, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command_line import bsexport, names, refused
from models import save_classifier

from bsexport.bundle.target import Target
from bsexport_runtime import __version__

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
NEEDED = {"bsexport_runtime", "numpy", "onnxruntime"}


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    save_classifier(folder / "model.onnx", words=100)
    assert bsexport("pack", folder / "model.onnx", "--prune", "0.5", "-o", folder / "model-bsx", "-q").exit_code == 0
    return folder / "model-bsx"


def bundled(package: Path, wheels: dict[str, Path], out: Path, machine: str, *options: str) -> Path:
    """A bundle with wheels of pip's index."""
    wheel_folder = wheels[machine].parent
    result = bsexport("bundle", package, "--target", f"linux-{machine}", "--wheels", wheel_folder, "-o", out, *options)
    if result.exit_code and "pip cannot get all wheels" in result.stderr:
        pytest.skip(f"NOT TESTED: bundles, since pip's index cannot be reached: {result.stderr.strip()}")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def for_arm(package: Path, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled(package, wheels, tmp_path_factory.mktemp("arm") / "bundle", "aarch64", "--python", "3.11")


@pytest.fixture(scope="session")
def for_here(package: Path, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (os.uname().machine, sys.platform) != ("x86_64", "linux"):
        pytest.skip("NOT TESTED: the bundle for linux-x86_64, on another machine")
    return bundled(package, wheels, tmp_path_factory.mktemp("here") / "bundle", "x86_64")


def tags(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as content:
        (metadata,) = (name for name in content.namelist() if name.endswith(".dist-info/WHEEL"))
        return re.findall(r"^Tag: (.*)$", content.read(metadata).decode(), re.MULTILINE)


def test_the_folder_holds_all_that_the_device_needs(for_arm: Path, package: Path) -> None:
    expected = ["README.md", "SHA256SUMS", "bundle.json", "install.sh", "package", "smoke_test.py", "wheels"]
    assert names(for_arm) == expected
    for file in package.iterdir():
        assert (for_arm / "package" / file.name).read_bytes() == file.read_bytes()
    found = {wheel.name.split("-")[0] for wheel in (for_arm / "wheels").iterdir()}
    assert found > NEEDED
    assert not found & {"torch", "onnx", "click", "bsexport"}
    assert names(for_arm.parent) == ["bundle"]


def test_the_wheels_are_of_the_device(for_arm: Path) -> None:
    for wheel in (for_arm / "wheels").iterdir():
        for tag in tags(wheel):
            python, abi, platform = tag.split("-")
            if platform == "any":
                continue
            assert platform in Target("aarch64", "3.11").platforms, wheel.name
            assert python in ("cp311", "py3") or (abi == "abi3" and int(python.removeprefix("cp3")) <= 11), wheel.name
    (runtime,) = (for_arm / "wheels").glob("bsexport_runtime-*")
    assert runtime.name == f"bsexport_runtime-{__version__}-py3-none-manylinux_2_17_aarch64.whl"
    assert [wheel.name.split("-")[0] for wheel in (for_arm / "wheels").glob("*aarch64*")] >= sorted(NEEDED)


def test_the_record_has_the_sizes_and_the_sums_are_right(for_arm: Path) -> None:
    record = json.loads((for_arm / "bundle.json").read_text())
    assert (record["target"], record["python"], record["glibc"]) == ("linux-aarch64", "3.11", "2.28")
    wheels = {wheel.name: wheel.stat().st_size for wheel in (for_arm / "wheels").iterdir()}
    package = sum(file.stat().st_size for file in (for_arm / "package").iterdir())
    assert record["bytes"] == {"package": package, **wheels}
    sums = (for_arm / "SHA256SUMS").read_text().splitlines()
    files = {path.relative_to(for_arm).as_posix() for path in for_arm.rglob("*") if path.is_file()}
    assert {line.split("  ", 1)[1] for line in sums} == files - {"SHA256SUMS"}
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=for_arm, check=True)
    page = (for_arm / "README.md").read_text()
    assert all(f"| {name} | {size:,} |" in page for name, size in record["bytes"].items())


def script(bundle: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """install.sh of a bundle, without a network as far as pip could tell, and without anything of this checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PYTHON": sys.executable}
    command = ["sh", bundle / "install.sh", *map(str, arguments)]
    return subprocess.run(command, env={**kept, **nowhere, **environment}, capture_output=True, text=True)


def test_it_installs_and_runs_without_an_index(for_here: Path, tmp_path: Path) -> None:
    done = script(for_here, tmp_path / "environment")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("installed; try it: ")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BSEXPORT_BACKEND")}
    command = [tmp_path / "environment" / "bin" / "python", for_here / "smoke_test.py"]
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert tried.returncode == 0, tried.stderr
    backend, *lines = tried.stdout.splitlines()
    assert backend.startswith(f"native: libbsx {__version__}")
    for mode in ("float32", "coded"):
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"{mode}: "))
        assert re.fullmatch(rf"{mode}: loaded in \d\.\d+ s, first run \d\.\d+ s, second \d\.\d+ s", lines[at])
        assert lines[at + 1] == "  logits float32 [1, 3]"
    again = script(for_here, tmp_path / "environment")
    assert (again.returncode, again.stderr) == (
        1,
        f"install.sh: {tmp_path}/environment exists already; remove it, or name another folder\n",
    )


def test_another_machine_or_python_is_refused(for_arm: Path, tmp_path: Path) -> None:
    done = script(for_arm, tmp_path / "environment")
    assert done.returncode == 1
    assert done.stderr.startswith("install.sh: this bundle is for Python 3.11 on aarch64, but ")
    assert "there is no python9" in script(for_arm, tmp_path / "environment", PYTHON="python9").stderr
    assert not (tmp_path / "environment").exists()


def test_a_damaged_bundle_is_not_installed(for_here: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(for_here, copy)
    content = bytearray((copy / "package" / "weights.bsx").read_bytes())
    content[-1] ^= 1
    (copy / "package" / "weights.bsx").write_bytes(content)
    done = script(copy)
    assert done.returncode == 1
    assert "package/weights.bsx: FAILED" in done.stdout + done.stderr
    assert "files are damaged" in done.stderr
    assert not (copy / "environment").exists()


def test_force_replaces_a_bundle_and_nothing_else(
    package: Path, wheels: dict[str, Path], for_arm: Path, tmp_path: Path
) -> None:
    shutil.copytree(for_arm, tmp_path / "bundle")
    arguments = ("bundle", package, "--target", "linux-aarch64", "-o", tmp_path / "bundle")
    assert "exists already" in refused(*arguments)
    (tmp_path / "mine").mkdir()
    assert "was not made by this command" in refused(*arguments[:-1], tmp_path / "mine", "--force")
    out = bundled(package, wheels, tmp_path / "bundle", "aarch64", "--python", "3.11", "--force", "--json")
    assert (out / "SHA256SUMS").read_text() == (for_arm / "SHA256SUMS").read_text()


def test_without_the_runtime_s_wheel_one_line_says_what_to_do(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "wheels").mkdir()
    arguments = (
        "bundle",
        package,
        "--target",
        "linux-aarch64",
        "--wheels",
        tmp_path / "wheels",
        "-o",
        tmp_path / "out",
    )
    said = refused(*arguments)
    assert said.startswith(
        f"bsexport-runtime=={__version__} is not to be had for linux-aarch64 with glibc 2.28 and Python "
    )
    assert said.endswith("in a checkout of bsexport, `make wheels` builds it into dist/: then give --wheels dist")
    assert names(tmp_path) == ["wheels"]


def test_a_wheel_without_the_library_is_not_taken(
    package: Path, wheels: dict[str, Path], tmp_path: Path, for_arm: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    shutil.copy(wheels["any"], tmp_path / "wheels")
    for wheel in (for_arm / "wheels").iterdir():
        if not wheel.name.startswith("bsexport_runtime-"):
            shutil.copy(wheel, tmp_path / "wheels")
    options = ("--python", "3.11", "--wheels", tmp_path / "wheels", "-o", tmp_path / "out")
    said = refused("bundle", package, "--target", "linux-aarch64", *options)
    assert said.startswith(
        f"bsexport_runtime-{__version__}-py3-none-any.whl is without the native library, and none with"
    )
    assert names(tmp_path) == ["wheels"]


def test_bad_input_is_refused_before_anything_is_fetched(package: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "no such package" in refused("bundle", tmp_path / "nothing", "--target", "linux-aarch64", *out)
    for python in ("3", "3.9", "three", "3.11.2"):
        said = refused("bundle", package, "--target", "linux-aarch64", "--python", python, *out)
        assert said == f"--python is {python!r}, expected the device's version, 3.10 or later, such as 3.11"
    missing = ("--wheels", tmp_path / "missing")
    assert "missing: no such folder" in refused("bundle", package, "--target", "linux-aarch64", *missing, *out)
    assert bsexport("bundle", package, "--target", "windows", *out).exit_code == 2
    shutil.copytree(package, tmp_path / "damaged")
    content = bytearray((tmp_path / "damaged" / "weights.bsx").read_bytes())
    content[-1] ^= 1
    (tmp_path / "damaged" / "weights.bsx").write_bytes(content)
    assert "copy the package again" in refused("bundle", tmp_path / "damaged", "--target", "linux-aarch64", *out)
    assert names(tmp_path) == ["damaged"]


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_platforms_go_from_the_newest_glibc_to_the_oldest(machine: str) -> None:
    platforms = Target(machine, HERE).platforms
    assert platforms[0] == f"manylinux_2_28_{machine}"
    assert platforms[-2:] == [f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    assert len(platforms) == 13

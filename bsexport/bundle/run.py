"""bundle(): the line from a package to the folder that is copied to a device. Read this first."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from bsexport.bundle.target import GLIBC, Target
from bsexport.bundle.wheels import fetch_wheels
from bsexport.errors import BundleError
from bsexport.output import Staging, disk_errors
from bsexport.record import read_record, write_record
from bsexport_runtime import Package, PackageError, __version__
from bsexport_runtime.package import MANIFEST

FORMAT = "bsexport bundle"
RECORD = "bundle.json"
SUMS = "SHA256SUMS"
PACKAGE = "package"
WHEELS = "wheels"

README = """\
# {name} for {target}

Runs without a network on Linux on {machine} with glibc 2.{glibc} or later and Python {python}:

    sh install.sh                                    # makes the folder `environment` from `wheels`
    environment/bin/python smoke_test.py             # loads the package, runs it once, prints shapes and times

```python
import bsexport_runtime

session = bsexport_runtime.load("package")  # an onnxruntime.InferenceSession
```

`sha256sum -c SHA256SUMS` checks every file, and install.sh does so first. Sessions need the wheels of bsexport-runtime,
numpy and onnxruntime; the others are what onnxruntime declares to need, for tools of its own.

| | bytes |
|---|---:|
{sizes}
"""


def bundle(
    path: Path,
    target: Target,
    out: Path,
    *,
    wheels: Path | None = None,
    force: bool = False,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> dict[str, Any]:
    """Write the folder `out` for a device and return its record, which also stands in it as bundle.json.

    wheels: a folder of wheels to take before those of pip's index, such as the runtime's own from `make wheels`.
    Raises PackageError if the package is damaged, BundleError if a wheel cannot be had, OutputError if `out` exists and
    force is not given, or the disk is full; then nothing is written.
    """
    with Staging(out, force=force, replaceable=is_bundle) as staging:
        progress("checking", 0)
        package = checked(path)
        if wheels is not None and not wheels.is_dir():
            raise BundleError(f"--wheels {wheels}: no such folder; expected one with .whl files")
        progress("fetching wheels", 0.1)
        with disk_errors(out):
            fetch_wheels(target, staging.path / WHEELS, wheels)
            progress("writing", 0.8)
            _copy_package(package, staging.path / PACKAGE)
            record = _record(path, target, staging.path)
            _write_scripts(record, target, staging.path)
            write_record(staging.path / RECORD, record)
            _write_sums(staging.path)
        staging.publish_directory()
    progress("writing", 1)
    return record


def is_bundle(path: Path) -> bool:
    """Whether a bundle stands at the path: what --force may replace."""
    return read_record(path / RECORD, FORMAT) is not None


def checked(path: Path) -> Package:
    """The package at `path`, every checksum of which holds. Raises PackageError."""
    package = Package(path)
    for wrong in package.verify():
        raise PackageError(wrong)
    return package


def _copy_package(package: Package, out: Path) -> None:
    out.mkdir()
    for name in [MANIFEST, *package.files]:
        shutil.copyfile(package.path / name, out / name)


def _record(path: Path, target: Target, folder: Path) -> dict[str, Any]:
    """What the bundle is and what it holds, in bytes: each wheel, and the package's files together."""
    sizes = {wheel.name: wheel.stat().st_size for wheel in sorted((folder / WHEELS).iterdir())}
    return {
        "format": FORMAT,
        "name": path.resolve().name,
        "target": target.name,
        "python": target.python,
        "glibc": f"2.{GLIBC}",
        "runtime": __version__,
        "bytes": {PACKAGE: sum(file.stat().st_size for file in (folder / PACKAGE).iterdir()), **sizes},
    }


def _write_scripts(record: dict[str, Any], target: Target, folder: Path) -> None:
    here = files("bsexport.bundle")
    install = (here / "install.sh").read_text(encoding="utf-8")
    for place, text in {"@PYTHON@": target.python, "@MACHINE@": target.machine, "@RUNTIME@": __version__}.items():
        install = install.replace(place, text)
    sizes = "\n".join(f"| {name} | {size:,} |" for name, size in record["bytes"].items())
    readme = README.format(
        name=record["name"],
        target=target.name,
        machine=target.machine,
        glibc=GLIBC,
        python=target.python,
        sizes=sizes,
    )
    (folder / "install.sh").write_text(install, encoding="utf-8")
    (folder / "install.sh").chmod(0o755)
    (folder / "smoke_test.py").write_text((here / "smoke_test.py").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _write_sums(folder: Path) -> None:
    """SHA256SUMS of every file, as sha256sum -c reads it."""
    lines = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        lines.append(f"{digest}  {file.relative_to(folder).as_posix()}\n")
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")

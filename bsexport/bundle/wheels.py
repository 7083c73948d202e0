"""Wheels for a target, fetched by pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bsexport.bundle.target import GLIBC, Target
from bsexport.errors import BundleError
from bsexport_runtime import __version__

RUNTIME = f"bsexport-runtime=={__version__}"


def fetch_wheels(target: Target, out: Path, given: Path | None) -> list[Path]:
    """Put the runtime's wheel and those of all that it needs into `out`; returns their paths.

    given: a folder of wheels that are looked at too; whatever it lacks comes from the index that pip is set up for.
    Raises BundleError, with pip's reason, if one cannot be had for the target, or the runtime's own has no library.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--python-version", target.python, "--implementation", "cp", "--dest", str(out)]
    for platform in target.platforms:
        command += ["--platform", platform]
    if given is not None:
        command += ["--find-links", str(given.absolute())]
    done = subprocess.run([*command, RUNTIME], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise BundleError(_why(done.stderr, target, given))
    wheels = sorted(out.glob("*.whl"))
    _check_runtime(wheels, target)
    return wheels


def _why(stderr: str, target: Target, given: Path | None) -> str:
    """One line of pip's many."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (stderr.strip().splitlines() or ["pip said nothing"])[-1]
    wanted = f"for {target.name} with glibc 2.{GLIBC} and Python {target.python}"
    if "bsexport-runtime" in reason:
        where = "on pip's index" if given is None else f"in {given} or on pip's index"
        build = "in a checkout of bsexport, `make wheels` builds it into dist/: then give --wheels dist"
        return f"{RUNTIME} is not to be had {wanted}, {where}; {build}"
    return f"pip cannot get all wheels {wanted}: {reason}"


def _check_runtime(wheels: list[Path], target: Target) -> None:
    """The wheel without the library would run on the device, but slowly."""
    (runtime,) = (wheel for wheel in wheels if wheel.name.startswith("bsexport_runtime-"))
    if not runtime.stem.endswith(f"_{target.machine}"):
        raise BundleError(
            f"{runtime.name} is without the native library, and none with it was found for {target.name}; "
            "in a checkout of bsexport, `make wheels` builds it into dist/: then give --wheels dist"
        )

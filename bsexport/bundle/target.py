"""The devices that bundles are made for, and the wheels that run there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bsexport.errors import BundleError

MACHINES = ("aarch64", "x86_64")
OLDEST_GLIBC, GLIBC = 17, 28  # 2.17: of the oldest wheels; 2.28 (Debian 10, Ubuntu 20.04): what onnxruntime asks for
OLDEST_PYTHON = (3, 10)  # of bsexport-runtime


@dataclass(frozen=True)
class Target:
    """A device: its processor as `uname -m` names it, and the version of its Python, such as "3.11"."""

    machine: str
    python: str

    @property
    def name(self) -> str:
        """As --target has it."""
        return f"linux-{self.machine}"

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, those for newer systems first."""
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC, OLDEST_GLIBC - 1, -1)]
        return [*tags, f"manylinux2014_{self.machine}"]


def target_of(name: str, python: str) -> Target:
    """The target of a command line. Raises BundleError for a Python that is none, or too old for the runtime."""
    if not re.fullmatch(r"\d+\.\d+", python) or tuple(int(part) for part in python.split(".")) < OLDEST_PYTHON:
        oldest = ".".join(str(part) for part in OLDEST_PYTHON)
        raise BundleError(f"--python is {python!r}, expected the device's version, {oldest} or later, such as 3.11")
    return Target(name.removeprefix("linux-"), python)

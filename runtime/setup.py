"""Build libbsx as a plain shared library, loaded with ctypes: no Python headers, one wheel for all Pythons.

Without a working C compiler the package installs too, and decodes in numpy.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from sysconfig import get_platform

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

PORTABLE = ["-std=c99", "-O3", "-fvisibility=hidden"]
COMPILE = {
    "win32": ["/O2"],
    "linux": [*PORTABLE, "-fno-unswitch-loops", "-fno-inline-functions", "-fno-asynchronous-unwind-tables"],
}
"""As in native/Makefile: the library is to stay small. Compilers of other systems may not know all of it."""
LINK = {"linux-x86_64": ["-s"], "linux-aarch64": ["-s", "-Wl,-z,norelro"]}
"""Without symbols; and on 64-bit ARM without the 60 kB of zeros that linkers put before data that is made read-only."""

OLDEST_GLIBC = 17  # 2.17, from which on pip and onnxruntime know 64-bit ARM
LIBRARY = {"win32": "bsx.dll", "darwin": "libbsx.dylib"}.get(sys.platform, "libbsx.so")


class BuildLibrary(build_ext):
    """build_ext under the library's own name, instead of that of a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1], LIBRARY))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        # If it cannot be built now, one from an earlier build must not be taken for it.
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        if self.editable_mode:
            Path("src", self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        super().build_extension(ext)


class TaggedWheel(bdist_wheel):
    """A wheel for every Python 3: of the library's platform if it could be built, else of any."""

    def get_tag(self) -> tuple[str, str, str]:
        built = list(Path(self.get_finalized_command("build").build_lib).rglob(LIBRARY))
        return "py3", "none", manylinux(super().get_tag()[2], built[0].read_bytes()) if built else "any"


def manylinux(platform: str, library: bytes) -> str:
    """The tag for every Linux whose glibc has what the library needs of it; other platforms are what they are."""
    needed = [int(minor) for minor in re.findall(rb"\0GLIBC_2\.(\d+)", library)]
    if not platform.startswith("linux_") or not needed:
        return platform
    return platform.replace("linux", f"manylinux_2_{max(OLDEST_GLIBC, *needed)}", 1)


setup(
    ext_modules=[
        Extension(
            "bsexport_runtime.bsx",
            sources=[str(path) for path in sorted(Path("native").glob("*.c"))],
            depends=[str(path) for path in sorted(Path("native").glob("*.h"))],
            define_macros=[("BSX_SHARED", "1")],
            extra_compile_args=COMPILE.get(sys.platform, PORTABLE),
            extra_link_args=LINK.get(get_platform(), []),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": TaggedWheel},
)

"""The packages that the runtime's tests load are what bsexport makes of their models today."""

from __future__ import annotations

from pathlib import Path

import make_package
import pytest


@pytest.mark.parametrize(
    "package",
    [make_package.PACKAGE, make_package.INT8_PACKAGE, make_package.LANGUAGE_PACKAGE],
    ids=["package", "int8", "language"],
)
def test_the_runtime_s_packages_are_not_stale(package: Path, tmp_path: Path) -> None:
    """If one is: python runtime/tests/make_package.py"""
    make_package.make_all(tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / package.name).iterdir()}
    found = {path.name: path.read_bytes() for path in package.iterdir()}
    assert sorted(found) == sorted(made)
    assert [name for name in made if found[name] != made[name]] == []

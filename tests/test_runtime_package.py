"""The package that the runtime's tests load is what bsexport makes of its model today."""

from __future__ import annotations

from pathlib import Path

import make_package


def test_the_runtime_s_package_is_not_stale(tmp_path: Path) -> None:
    """If it is: python runtime/tests/make_package.py"""
    make_package.make(tmp_path / "package")
    made = {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()}
    found = {path.name: path.read_bytes() for path in make_package.PACKAGE.iterdir()}
    assert sorted(found) == sorted(made)
    assert [name for name in made if found[name] != made[name]] == []

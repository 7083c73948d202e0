"""The packages that the runtime's tests load are what bsexport makes of their models today."""

from __future__ import annotations

from pathlib import Path

import make_package
import numpy as np
import pytest

from bsexport_runtime import BsexportRuntimeError, generate, load

OTHER_CACHE = """
<ir_version: 8, opset_import: ["" : 17]>
fixture (int64[batch, sequence] input_ids, float[rows, 8, past] past_key_values__0__key)
     => (float[batch, sequence, 8] logits, float[rows, 8, past] present__0__key) {
  logits = Gather (table, input_ids)
  present__0__key = Identity (past_key_values__0__key)
}
"""


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


def test_a_graph_whose_cache_has_another_form_is_loaded_all_the_same(tmp_path: Path) -> None:
    """As other exporters make them: three dimensions here. It runs, but not under generate."""
    table = np.arange(-256, 256, dtype=np.float32).reshape(64, 8) * np.float32(make_package.STEP)
    make_package.make(tmp_path / "package", OTHER_CACHE, {"table": table})
    session = load(tmp_path / "package")
    past = np.ones((2, 8, 3), np.float32)
    logits, _ = session.run(None, {"input_ids": np.array([[5]]), "past_key_values.0.key": past})
    np.testing.assert_array_equal(logits[0, 0], table[5])
    with pytest.raises(BsexportRuntimeError, match="of no language model with a cache"):
        generate(session, [5], 1)

"""The choice of a mode under a limit, and its prediction, on a model whose weights are worth it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from bsexport.bench.process import in_process
from bsexport.bench.worker import Job
from bsexport.pipeline import pack
from bsexport.recipe import Recipe
from bsexport.source import open_source
from bsexport_runtime import Package, load, residency

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
wide (float[n, 1024] x) => (float[n, 2048] z) { y = MatMul (x, first)  z = MatMul (y, second) }
"""
MISSING = residency.MODES["coded"].missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"NOT TESTED: mode coded cannot be had: {MISSING}")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 MiB of weights, nine tenths of them 0."""
    folder = tmp_path_factory.mktemp("wide")
    model = parser.parse_model(MODEL)
    draw = np.random.default_rng(0)
    for name, shape in (("first", (1024, 2048)), ("second", (2048, 1024))):
        model.graph.initializer.append(numpy_helper.from_array(draw.normal(size=shape).astype(np.float32) * 0.05, name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1024
    onnx.save(model, folder / "wide.onnx")
    pack(open_source(str(folder / "wide.onnx")), Recipe(prune=0.9, step=2.0**-8), folder / "wide-bsx")
    return folder / "wide-bsx"


def test_coded_is_taken_with_a_warning_where_float32_does_not_fit(package: Path) -> None:
    needs = {mode: residency.predict(Package(package), mode) for mode in ("float32", "coded")}
    assert needs["coded"] < needs["float32"] / 2
    x = np.random.default_rng(1).normal(size=(3, 1024)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (dense,) = load(package, memory_limit=needs["float32"]).run(None, {"x": x})
    with pytest.warns(
        RuntimeWarning, match=r"loaded in mode coded, .*: float32 needs [\d.]+ MB, memory_limit"
    ) as caught:
        session = load(package, memory_limit=needs["float32"] - 1)
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], dense, rtol=0, atol=1e-4 * np.abs(dense).max())


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is measured on Linux alone")
@pytest.mark.parametrize("mode", ["float32", "coded"])
def test_what_is_predicted_is_what_a_session_takes(package: Path, tmp_path: Path, mode: str) -> None:
    """Not more, and not much less: measured, and under a limit that the system holds."""
    np.savez(tmp_path / "x.npz", np.ones((1, 1024), np.float32))
    job = Job(mode, str(package), 1, ["x"], [str(tmp_path / "x.npz")], runs=1)
    predicted = residency.predict(Package(package), mode)
    measured = in_process(job)["load_peak_bytes"]
    assert measured <= predicted <= measured + (4 << 20)
    room = predicted + (8 << 20)  # RLIMIT_DATA counts pages asked for and never touched; a second copy takes 16 MiB
    in_process(replace(job, limit=room))

"""Write the packages that the tests of loading use: `python runtime/tests/make_package.py` (needs bsexport).

Their weights follow formulas, so that the tests know every one of them without a decoder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PACKAGE = Path(__file__).with_name("package")
INT8_PACKAGE = Path(__file__).with_name("package-int8")
STEP = 2.0**-6
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
fixture (int64[batch, sequence] ids) => (float[batch, sequence, 40] scores) {
  embedded = Gather (table, ids)
  inner = MatMul (embedded, first)
  biased = Add (inner, bias)
  active = Relu (biased)
  wide = Cast <to = 1> (second)
  scores = MatMul (active, wide)
}
"""


def weights() -> dict[str, npt.NDArray[Any]]:
    """The decoded tensors of the package by name, exactly."""
    return {
        "table": _levels(400, 48, every=11) * np.float32(STEP),  # RL, two blocks
        "first": _levels(48, 72, every=1) * np.float32(STEP),  # EG
        "bias": np.linspace(-1, 1, 72, dtype=np.float32),  # RAW
        "second": (_levels(72, 40, every=3) * np.float32(STEP)).astype(np.float16),  # decodes to float16
    }


def outputs(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the model makes of ids [batch, sequence]: float32 [batch, sequence, 40], up to the order of summation."""
    w = weights()
    active = np.maximum(w["table"][ids] @ w["first"] + w["bias"], 0)
    scores: npt.NDArray[np.float32] = active @ w["second"].astype(np.float32)
    return scores


INT8_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
fixture (int64[batch, sequence] ids) => (float[batch, sequence, 400] scores) {
  embedded = Gather (table, ids)
  place = Gather (places, ids)
  sum = Add (embedded, place)
  inner = MatMul (sum, first)
  again = MatMul (inner, second)
  turned = Transpose <perm = [1, 0]> (table)
  product = MatMul (again, turned)
  scores = Add (product, bias)
}
"""


def int8_levels() -> dict[str, npt.NDArray[np.int64]]:
    """The levels of the package with an int8 form, exactly; "table" is read as an embedding and as an output layer."""
    levels = {
        "table": _levels(400, 48, every=11),
        "places": _levels(400, 48, every=3),  # row 3 goes beyond +-127
        "first": _levels(48, 72, every=1),  # column 5 does
        "second": _levels(72, 48, every=2),
    }
    levels["places"][3] *= 40
    levels["first"][:, 5] *= 100
    return {name: values.astype(np.int64) for name, values in levels.items()}


def int8_bias() -> npt.NDArray[np.float32]:
    """The tensor of that package that is not coded."""
    return np.linspace(-1, 1, 400, dtype=np.float32)


def make(out: Path, text: str, arrays: dict[str, npt.NDArray[Any]], *, int8: bool = False) -> None:
    """Pack a model of these weights to `out`."""
    import onnx
    from onnx import numpy_helper, parser

    from bsexport.pipeline import pack
    from bsexport.recipe import Recipe
    from bsexport.source import open_source

    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fixture.onnx"
        onnx.save(model, path)
        path.with_name("config.json").write_text('{"model_type": "fixture"}\n')
        pack(open_source(str(path)), Recipe(step=STEP), out, int8=int8, force=True)


def make_all(folder: Path) -> None:
    """Pack both models into a folder, each to the name of its package."""
    make(folder / PACKAGE.name, MODEL, weights())
    coded = {name: (levels * np.float32(STEP)).astype(np.float32) for name, levels in int8_levels().items()}
    make(folder / INT8_PACKAGE.name, INT8_MODEL, coded | {"bias": int8_bias()}, int8=True)


def _levels(rows: int, cols: int, *, every: int) -> npt.NDArray[np.float32]:
    """Levels from -9 to 9; about one in `every` is not 0."""
    places = np.arange(rows * cols, dtype=np.int64).reshape(rows, cols)
    mixed = places * 40503 % 65521
    return np.where(mixed % every == 0, mixed // every % 19 - 9, 0).astype(np.float32)


if __name__ == "__main__":
    make_all(PACKAGE.parent)

"""Load the package in each mode that it has and run it once, on ones: does it work here, and how fast is it?

A shape's open dimensions are 1 for the first and LENGTH for the others. The numbers of the outputs mean nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("BSEXPORT_REQUIRE_NATIVE", "1")  # without its library the runtime works, but is slow

import numpy as np

import bsexport_runtime
from bsexport_runtime.residency import MODES

LENGTH = 8
PACKAGE = Path(__file__).parent / "package"
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}


def ones(session: bsexport_runtime.Session) -> dict[str, np.ndarray]:
    """An input for each that the session takes; all ones is a mask that hides nothing, and an index of most tables."""
    inputs = {}
    for value in session.get_inputs():
        shape = [dim if isinstance(dim, int) else LENGTH if axis else 1 for axis, dim in enumerate(value.shape)]
        inputs[value.name] = np.ones(shape, DTYPES.get(value.type) or value.type.removeprefix("tensor(").rstrip(")"))
    return inputs


def try_mode(mode: str) -> None:
    """Print the mode's times and its outputs' shapes."""
    begin = time.perf_counter()
    session = bsexport_runtime.load(PACKAGE, mode=mode)
    loaded = time.perf_counter()
    inputs = ones(session)
    outputs = session.run(None, inputs)
    first = time.perf_counter()
    session.run(None, inputs)
    second = time.perf_counter()
    print(f"{mode}: loaded in {loaded - begin:.3f} s, first run {first - loaded:.4f} s, second {second - first:.4f} s")
    for output, array in zip(session.get_outputs(), outputs, strict=True):
        print(f"  {output.name} {array.dtype} {list(array.shape)}")


def main() -> None:
    """Try every mode whose graph the package has."""
    print(bsexport_runtime.backend())
    package = bsexport_runtime.Package(PACKAGE)
    for name, mode in MODES.items():
        if mode.graph not in package.files:
            print(f"{name}: the package has no {mode.graph}")
        else:
            try_mode(name)


if __name__ == "__main__":
    main()

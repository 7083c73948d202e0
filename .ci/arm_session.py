"""Sessions of the tests' package in every mode, run on two processors by .ci/arm-onnxruntime.

`arm_session.py FILE` writes what the float32 mode answers to FILE if there is none, and else compares all modes to it.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime

import bsexport_runtime
from bsexport_runtime.residency import MODES

PACKAGE = Path(__file__).parents[1] / "runtime" / "tests" / "package"


def answers(mode: str) -> np.ndarray:
    """The package's only output for one and for several rows of ids, joined: float32 [numbers]."""
    session = bsexport_runtime.load(PACKAGE, mode=mode, threads=2)
    (ids,) = session.get_inputs()
    outputs = [session.run(None, {ids.name: np.arange(n).reshape(-1, 1 if n == 1 else 4) % 8})[0] for n in (1, 12)]
    return np.concatenate([output.ravel() for output in outputs])


def main() -> None:
    """Write the answers, or compare with them."""
    file = Path(sys.argv[1])
    if not file.exists():
        np.save(file, answers("float32"))
        return
    expected = np.load(file)
    assert np.abs(expected).max() > 0.01
    modes = [name for name, mode in MODES.items() if mode.graph in bsexport_runtime.Package(PACKAGE).files]
    assert {"float32", "coded"} <= set(modes)
    for mode in modes:
        found = answers(mode)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=mode)
        print(f"{platform.machine()}, onnxruntime {onnxruntime.__version__}, {mode}: {found.size} numbers as expected")


if __name__ == "__main__":
    main()

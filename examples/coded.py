"""Run a package's coded graph in plain onnxruntime: `python coded.py PACKAGE INPUT OUTPUT ID...`.

INPUT, the model's only one, takes the ids as int64 [1, n]; the values of OUTPUT are printed one a line.
bsexport_runtime only says where the library with the operators is.
`bsexport_runtime.load(PACKAGE, mode="coded")` checks the package besides.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

import bsexport_runtime


def main() -> None:
    if len(sys.argv) < 5:
        sys.exit("usage: coded.py PACKAGE INPUT OUTPUT ID...")
    package, feed, output, *ids = sys.argv[1:]
    options = ort.SessionOptions()
    options.register_custom_ops_library(bsexport_runtime.ops_library())
    session = ort.InferenceSession(Path(package) / "model.onnx", options)
    (values,) = session.run([output], {feed: np.array([ids], np.int64)})
    print("\n".join(f"{value:.6f}" for value in values.ravel()))


if __name__ == "__main__":
    main()

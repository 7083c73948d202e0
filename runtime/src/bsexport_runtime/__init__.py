"""bsexport-runtime: decode exp-Golomb-coded weights into onnxruntime sessions on small devices.

session = bsexport_runtime.load("package")
outputs = session.run(None, inputs)
"""

from bsexport_runtime.codec import backend
from bsexport_runtime.errors import BackendError, BlobError, BsexportRuntimeError, PackageError, Status
from bsexport_runtime.generate import generate, stream
from bsexport_runtime.package import Package
from bsexport_runtime.residency import ops_library
from bsexport_runtime.session import Session, inspect, load, read_tensors
from bsexport_runtime.text import TextStream, tokenizer

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BlobError",
    "BsexportRuntimeError",
    "Package",
    "PackageError",
    "Session",
    "Status",
    "TextStream",
    "backend",
    "generate",
    "inspect",
    "load",
    "ops_library",
    "read_tensors",
    "stream",
    "tokenizer",
]

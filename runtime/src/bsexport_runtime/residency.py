"""How a package's weights lie in memory: the modes, what each takes, and which is taken under a limit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from bsexport_runtime.arena import panel_bytes
from bsexport_runtime.errors import BackendError, BsexportRuntimeError
from bsexport_runtime.format import DType, Layout
from bsexport_runtime.package import ARENA, CODED_GRAPH, INT8_GRAPH, PLAIN_GRAPH, WEIGHTS, Package

AUTO = "auto"
DIRECT_SINCE = (1, 31)  # the first onnxruntime that can use weights in place; older ones copy them

# Of a session beside its weights, with onnxruntime 1.32: MiniLM's graph of 31 kB takes 2.2 MB in all.
SESSION_BYTES = 2 << 20
GRAPH_FACTOR = 40  # bytes of memory for a byte of the graph's file

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@dataclass(frozen=True)
class Mode:
    """A form in which weights lie in memory.

    graph: the file of the package that runs on it; an encoder's stands beside it, under package.ENCODER + graph.
    file: what those graphs call the weights' file.
    weights_bytes: private memory that they take in it. missing: why it cannot be had here, None if it can.
    cost: what it costs beside float32, for a warning.
    """

    graph: str
    file: str
    weights_bytes: Callable[[Package], int]
    missing: Callable[[], str | None]
    cost: str = ""


def version() -> tuple[int, ...]:
    """Of onnxruntime, its first two numbers."""
    return tuple(int(part) for part in ort.__version__.split(".")[:2])


def ops_library() -> str:
    """The path of the library with EGMatMul, EGGather and EGDecode, for SessionOptions.register_custom_ops_library.

    With it `model.onnx` of a package runs in plain onnxruntime. Raises BackendError, with the reason, if there is none.
    """
    from bsexport_runtime import native  # raises BackendError: it is there, but cannot be used, or it is not

    path = Path(native.__file__).with_name(native.LIBRARY)
    if not native.has_operators():
        raise BackendError(f"{path.name} has no operators for onnxruntime: reinstall bsexport-runtime")
    return str(path)


def predict(package: Package, mode: str) -> int:
    """The peak of private memory above the imports, in bytes, that a session of the package takes in this mode.

    That is without the activations of its runs, which depend on the inputs. An encoder-decoder has two sessions.
    """
    chosen = MODES[mode]
    graphs = [package.files.get(prefix + chosen.graph, (0, ""))[0] for prefix in package.graphs]
    return chosen.weights_bytes(package) + sum(SESSION_BYTES + GRAPH_FACTOR * graph for graph in graphs)


def choose(package: Package, mode: str | None, memory_limit: int | str | None) -> str:
    """The mode to load a package in: that which is asked for, or under a limit the fastest that fits.

    mode: None is "auto" if there is a limit, else "float32"; "auto" without a limit is the fastest that can be had.
    memory_limit: bytes, or a text such as "512MB" or "1.5GiB", for the private memory above the imports.

    Raises BsexportRuntimeError for a mode that is unknown or cannot be had here, or if nothing fits: the line then says
    what each mode needs. Warns if it falls back from float32.
    """
    limit = None if memory_limit is None else parse_limit(memory_limit)
    asked = mode or ("float32" if limit is None else AUTO)
    if asked != AUTO:
        _check(package, asked, limit)
        return asked
    needs: list[str] = []  # of the modes that were passed over
    for name, known in MODES.items():
        if name == "int8" and package.int8 is None:
            continue
        if (missing := known.missing()) is not None:  # then what it needs cannot be told either
            needs.append(f"{name} cannot be had ({missing})")
        elif limit is None or (need := predict(package, name)) <= limit:
            if needs:
                _warn(package, name, needs[0], limit)
            return name
        else:
            needs.append(f"{name} needs {_size(need)}")
    short = f"no mode fits into {_size(limit or 0)}"
    raise BsexportRuntimeError(f"{package.path}: {short}: {', '.join(needs)}; prune more, or allow more")


def parse_limit(limit: int | str) -> int:
    """Bytes of a number or of a text such as "64 MiB". Raises BsexportRuntimeError if it is no size above 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(limit).lower())
    unit = None if found is None or isinstance(limit, bool) else _UNITS.get(found[2] if found[2] != "b" else "")
    size = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if size < 1:
        raise BsexportRuntimeError(f"memory_limit is {limit!r}, expected bytes above 0, as a number or as '512MB'")
    return size


def _check(package: Package, mode: str, limit: int | None) -> None:
    if mode not in MODES:
        expected = ", ".join(repr(name) for name in (*MODES, AUTO))
        raise BsexportRuntimeError(f"mode is {mode!r}, expected one of {expected}")
    if mode == "int8" and package.int8 is None:
        raise BsexportRuntimeError(f"{package.path}: has no graph for mode int8; pack it again with --int8")
    if (missing := MODES[mode].missing()) is not None:
        raise BsexportRuntimeError(f"mode {mode} cannot be had: {missing}")
    if limit is not None and (need := predict(package, mode)) > limit:
        raise BsexportRuntimeError(
            f"{package.path}: mode {mode} needs {_size(need)}, memory_limit is {_size(limit)}; leave mode out to "
            "take one that fits"
        )


def _warn(package: Package, mode: str, passed_over: str, limit: int | None) -> None:
    why = passed_over if limit is None else f"{passed_over}, memory_limit is {_size(limit)}"
    # At whoever called load.
    warnings.warn(f"{package.path}: loaded in mode {mode}, {MODES[mode].cost}: {why}", RuntimeWarning, stacklevel=4)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


def _coded_bytes(package: Package) -> int:
    """The decoders' tables, and every tensor that EGDecode writes out: coded, but no float32 matrix.

    A matrix that the graph uses otherwise than in products and Gather is written out, too; that is not foreseen.
    """
    from bsexport_runtime import native

    total = 0
    for tensor in package.tensors:
        head = package.head(tensor)
        if head.layout is not Layout.RAW:
            total += native.workspace_bytes(package.blob(tensor))
            total += head.nbytes if (len(head.shape), head.dtype) != (2, DType.FLOAT32) else 0
    return total


def _int8_bytes(package: Package) -> int:
    """The arena, and what is decoded aside."""
    return 0 if package.int8 is None else package.int8.arena_bytes + panel_bytes(package.int8)


def _too_old() -> str | None:
    if version() < DIRECT_SINCE:
        return f"it needs onnxruntime 1.31 or later, this is {ort.__version__}: update it"
    return None


def _no_operators() -> str | None:
    if old := _too_old():
        return old
    try:
        ops_library()
    except BackendError as error:
        return f"its operators are in the native library: {error}"
    return None


MODES = {
    "float32": Mode(PLAIN_GRAPH, ARENA, lambda package: package.arena_bytes, lambda: None),
    "int8": Mode(INT8_GRAPH, ARENA, _int8_bytes, _too_old, "whose products round their activations to 8 bits"),
    "coded": Mode(CODED_GRAPH, WEIGHTS, _coded_bytes, _no_operators, "which is slower"),
}
"""In the order in which `auto` tries them: what is exact first, then what is fastest."""

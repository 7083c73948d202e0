"""Load a package into an onnxruntime session whose weights lie in one buffer, decoded or coded, never copied."""

from __future__ import annotations

import math
import mmap
import os
import platform
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from bsexport_runtime import codec
from bsexport_runtime.arena import Arena, decode_arena, decode_int8_arena
from bsexport_runtime.cache import has_cache
from bsexport_runtime.errors import BlobError, BsexportRuntimeError, PackageError
from bsexport_runtime.language import Language, read_language
from bsexport_runtime.package import ARENA, ENCODER, Package, Tensor
from bsexport_runtime.residency import DIRECT_SINCE, MODES, choose, ops_library, version

DIRECT = "session.use_external_initializer_file_buffers_directly"

# The arena is used in place only if nothing makes a second copy of a weight: no direct buffers means a copy, prepacking
# copies every matrix, and constant folding would copy what it folds.
CONFIG = {
    DIRECT: "1",
    "session.disable_prepacking": "1",
    "optimization.constant_folding_max_output_size_in_bytes": "4096",
}

# On x86-64 before VNNI the fast sums of 8-bit products overflow; with this, onnxruntime takes slower, right ones, and
# copies the matrices for them, whatever the processor.
NO_VNNI_CONFIG = {"session.x64quantprecision": "1"}

_ERRORS = 3  # onnxruntime's log level; on the one below, it says of every weight that it was not folded, which is meant

# What onnxruntime raises when it refuses a graph; none of them has a base but Exception.
_REFUSALS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Session(ort.InferenceSession):  # type: ignore[misc]
    """An onnxruntime.InferenceSession that also owns the buffer that its weights lie in.

    Of an encoder-decoder it is the decoder's, and its attribute `encoder` the encoder's session over the same buffer;
    of all other models that is None.

    graph: path or bytes of a graph whose weights are external in `file`; from 1.31 on no other external file is read.
    arena: uint8, the content of that file: all its tensors, each at its offset, or the blobs.
    file: its name in the graph.
    options: settings that zero copy needs are added, and the options then belong to this session.
    tensors: those of the arena. Only onnxruntime before 1.31 needs them: it copies them, and `arena` is then empty.
    beside: another session, made with the same `options`: this one is over its arena, too.
    Any other keyword: as for onnxruntime.InferenceSession.

    Its attribute `language` is what the package of a language model says of texts, None for other models.

    Raises BsexportRuntimeError if the options belong to another session, and what onnxruntime raises.
    """

    def __init__(
        self,
        graph: str | bytes,
        arena: Arena,
        options: ort.SessionOptions | None = None,
        *,
        file: str = ARENA,
        tensors: Sequence[Tensor] = (),
        beside: Session | None = None,
        **kwargs: Any,
    ) -> None:
        options = ort.SessionOptions() if options is None else options
        _configure(options)
        lend = _lend if version() >= DIRECT_SINCE else _copy
        try:
            lent = lend(options, file, arena, tensors) if beside is None else beside.arena
        except RuntimeError as error:
            raise BsexportRuntimeError(
                "sess_options belong to another session already; give each load its own onnxruntime.SessionOptions"
            ) from error
        super().__init__(graph, options, **kwargs)
        self.arena: Arena = lent
        self.encoder: Session | None = None
        self.language: Language | None = None
        self._origin = os.getpid()
        self._mapped: mmap.mmap | None = None
        # onnxruntime's own session, which points into the arena, outlives this object in an IOBinding or a NodeArg.
        weakref.finalize(self._sess, _let_go, lent).atexit = False

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """As for onnxruntime.InferenceSession.

        Raises BsexportRuntimeError in a process that was forked after the load, if the session has threads of its own,
        and PackageError if the mapped file of a coded session has been cut short.
        """
        self._check_alive()
        return super().run(output_names, input_feed, run_options)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """As `run`."""
        self._check_alive()
        super().run_with_iobinding(iobinding, run_options)

    def run_async(
        self, output_names: Any, input_feed: Any, callback: Any, user_data: Any, run_options: Any = None
    ) -> None:
        """As `run`."""
        self._check_alive()
        super().run_async(output_names, input_feed, callback, user_data, run_options)

    def _check_alive(self) -> None:
        """Refuse what would never return, or would end the process: lost threads, and pages that are gone."""
        if os.getpid() != self._origin and self.get_session_options().intra_op_num_threads != 1:
            raise BsexportRuntimeError(
                "this session was loaded before a fork, which took its threads: load it in the new process, or with "
                "threads=1"
            )
        if self._mapped is not None and self._mapped.size() < len(self._mapped):
            found = f"was cut short to {self._mapped.size()} of {len(self._mapped)} bytes while a session uses it"
            raise PackageError(f"weights.bsx: {found}; copy the package again and load it anew")

    def set_providers(self, providers: Sequence[Any] | None = None, provider_options: Any = None) -> None:
        """As for onnxruntime.InferenceSession, which makes a new session of the arena.

        Raises BsexportRuntimeError before 1.31: the weights have been copied, so there is no arena any more.
        """
        if not self.arena.size:
            raise BsexportRuntimeError(
                f"onnxruntime {ort.__version__} cannot set providers later; give them to bsexport_runtime.load"
            )
        super().set_providers(providers, provider_options)
        if self.encoder is not None:
            self.encoder.set_providers(providers, provider_options)


def load(
    path: str | Path,
    *,
    mode: str | None = None,
    memory_limit: int | str | None = None,
    sess_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    threads: int | None = None,
    verify: bool = False,
    **kwargs: Any,
) -> Session:
    """A session over the package at `path`: its weights lie in memory once, where onnxruntime uses them.

    Of an encoder-decoder it is the decoder's session, whose attribute `encoder` is the encoder's.

    mode: "float32": decoded, the default without a limit. "coded": as they are stored, in the mapped file, multiplied
    without being decoded as a whole; outputs are those of float32 but for the order of sums. "int8": a quarter of
    float32's memory, and faster, but products take activations rounded to 8 bits; of packages made with --int8.
    "auto", the default with a limit: the first of float32, int8 and coded that fits.
    memory_limit: bytes, or a text such as "512MB", of private memory above the imports; activations are not foreseen.
    sess_options: an onnxruntime.SessionOptions; settings that it needs are added, so give each load its own. Without
    them onnxruntime logs errors only, and enable_mem_pattern is off, so that no address space is reserved in vain.
    providers, and any other keyword: as for onnxruntime.InferenceSession.
    threads: for decoding, and for the session unless sess_options are given; default: all cores of this process.
    verify: check the sha256 of every file first (the blocks' CRCs and the graph's sha256 are always checked).

    The package's files are not needed any more once it has returned, but that weights.bsx must not be cut short or
    written to while a coded session lives: replace it by renaming another over it. `run` refuses a file that was cut
    short; one that is cut while it runs ends the process (SIGBUS), never with wrong numbers.

    Raises PackageError, naming file and tensor, if anything of the package is damaged or onnxruntime refuses its graph,
    and BsexportRuntimeError for a mode that is unknown or cannot be had here, if none fits the limit, for options that
    belong to another session, or if there is too little memory. A coded block is checked whenever it is used: a damaged
    one makes `run` raise onnxruntime's error, which names it.
    Warns if "auto" falls back from float32.
    Warns if this onnxruntime copies the weights (before 1.31): while it loads, they then take twice their memory.
    """
    if threads is not None and threads < 1:
        raise BsexportRuntimeError(f"threads is {threads}, expected at least 1, or None for all cores")
    package = Package(path)
    if len(package.graphs) > 1 and version() < DIRECT_SINCE:
        two = "two graphs over one buffer need onnxruntime 1.31 or later"
        raise BsexportRuntimeError(f"{package.path}: {two}, this is {ort.__version__}: update it")
    chosen = MODES[name := choose(package, mode, memory_limit)]
    if verify:
        for wrong in package.verify():
            raise PackageError(wrong)
    if version() < DIRECT_SINCE:
        warnings.warn(
            f"onnxruntime {ort.__version__} copies the weights, so loading takes twice their memory; 1.31 does not",
            RuntimeWarning,
            stacklevel=2,
        )
    graphs = {prefix: package.read_bytes(prefix + chosen.graph) for prefix in package.graphs}
    options = own_options(threads) if sess_options is None else sess_options
    if name == "coded":
        options.register_custom_ops_library(ops_library())
        weights = np.frombuffer(package.mapping or b"", np.uint8)
    elif name == "int8":
        if _sums_overflow():
            _configure(options, NO_VNNI_CONFIG)
        weights = decode_int8_arena(package, threads or available_cores())
    else:
        weights = decode_arena(package, threads or available_cores())
    kwargs |= {"file": chosen.file, "tensors": package.tensors, "providers": list(providers)}
    made: dict[str, Session] = {}
    for prefix, graph in graphs.items():
        try:
            made[prefix] = Session(graph, weights, options, beside=made.get(""), **kwargs)
        except _REFUSALS as error:
            reason = " ".join(str(error).split())
            refused = f"{package.path / (prefix + chosen.graph)}: onnxruntime {ort.__version__} refuses it"
            raise PackageError(f"{refused}: {reason}") from error
        if name == "coded":
            made[prefix]._mapped = package.mapping
    session = made[""]
    session.encoder = made.get(ENCODER)
    if has_cache(session):
        session.language = read_language(package)
    return session


def own_options(threads: int | None) -> ort.SessionOptions:
    """The session options of a load that is given none; threads: of the session, None for onnxruntime's choice."""
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS
    # Its plan reserves as much address space again as the weights take; nothing is ever put there.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    _configure(options)
    return options


def read_tensors(path: str | Path, names: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The decoded tensors of a package by name, all of them or those named; bfloat16 is widened to float32.

    Raises PackageError if the package is damaged or has no tensor of a name.
    """
    package = Package(path)
    known = {tensor.name: tensor for tensor in package.tensors}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise PackageError(
            f"{package.path}: has no tensor {unknown[0]!r}; it has {len(known)}, see bsexport_runtime.inspect"
        )
    chosen = known if names is None else {name: known[name] for name in names}
    return {name: _decode(package, tensor) for name, tensor in chosen.items()}


def inspect(path: str | Path) -> dict[str, Any]:
    """What a package says of itself: its manifest, its path, and the backend that would decode it."""
    package = Package(path)
    return {**package.manifest, "path": str(package.path), "backend": codec.backend()}


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lend(options: ort.SessionOptions, file: str, arena: Arena, tensors: Sequence[Tensor]) -> Arena:
    """Have the session use the arena in place; returns what must live as long as it does."""
    # Even without weights: onnxruntime reads external data from the disk only where it is told of no such file.
    lent = arena if arena.size else np.zeros(1, np.uint8)
    options.add_external_initializers_from_files_in_memory([file], [lent], [lent.nbytes])
    return lent


def _copy(options: ort.SessionOptions, file: str, arena: Arena, tensors: Sequence[Tensor]) -> Arena:
    """Have the session copy the tensors out of the arena; returns nothing to keep."""
    if arena.size and not tensors:
        raise BsexportRuntimeError(f"onnxruntime {ort.__version__} cannot use an arena in place; update it to 1.31")
    options.add_session_config_entry(DIRECT, "0")  # from 1.32 on it would keep these, too, from being copied
    values = []
    for tensor in tensors:
        words = arena[tensor.arena_offset :][: math.prod(tensor.shape) * tensor.dtype.storage.itemsize]
        array = words.view(tensor.dtype.storage).reshape(tensor.shape)
        values.append(ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, int(tensor.dtype)))
    options.add_external_initializers([tensor.name for tensor in tensors], values)
    return arena[:0].copy()


def _configure(options: ort.SessionOptions, config: Mapping[str, str] = CONFIG) -> None:
    for key, value in config.items():
        try:
            options.get_session_config_entry(key)
        except RuntimeError:  # not set by the caller, who would know why
            options.add_session_config_entry(key, value)


def _decode(package: Package, tensor: Tensor) -> npt.NDArray[Any]:
    try:
        return codec.decode(package.blob(tensor))
    except BlobError as error:
        raise package.damaged(tensor, error) from error


def _sums_overflow() -> bool:
    """Whether this is an x86-64 processor without VNNI, or nothing tells that it has that."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True


def _let_go(arena: Arena) -> None:
    """Nothing to do: that it is still waiting to be called is what keeps the arena."""

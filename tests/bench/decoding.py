"""Generate in a fresh process, and print what that took as JSON: `python -m tests.bench.decoding KIND PATH THREADS`."""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

import bsexport_runtime
from bsexport.bench.worker import MODES, Memory
from bsexport_runtime.decoder import Decoder, vocabulary_of

from . import llama_cpp

PLAIN, LLAMA = "onnxruntime", "llama.cpp"
PROMPT, NEW = 32, 64
TEXTS = 4  # over which the overhead is measured
IDS = np.random.default_rng(0).integers(300, 30_000, PROMPT).tolist()


def measure(kind: str, path: str, threads: int) -> dict[str, Any]:
    """KIND: a mode of the runtime, PLAIN for an .onnx file with onnxruntime's default options, or LLAMA.

    Tokens per second of the prompt and of the text after it, the second time of two; the tokens; peak_bytes: of private
    memory above the imports, file_bytes: pages of files besides. For PLAIN and the modes also overhead: of a token over
    a run of the session alone, the median of differences between neighbours, which take turns.
    """
    if kind == LLAMA:
        import xllamacpp  # noqa: F401
    memory = Memory()
    found = _llama(path, threads) if kind == LLAMA else _session(kind, path, threads)
    peak, _ = memory.mark()
    return found | {"peak_bytes": peak, "file_bytes": memory.more_files()}


def _llama(path: str, threads: int) -> dict[str, Any]:
    server = llama_cpp.server(path, threads)
    llama_cpp.generate(server, IDS, NEW)
    return llama_cpp.generate(server, IDS, NEW)


def _session(kind: str, path: str, threads: int) -> dict[str, Any]:
    if kind == PLAIN:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    else:
        session = bsexport_runtime.load(path, threads=threads, **MODES[kind])
    ids = [token % vocabulary_of(session) for token in IDS]
    for _ in range(2):
        times, tokens = [time.perf_counter()], []
        for (token,) in bsexport_runtime.stream(session, ids, NEW, stop_tokens=()):
            times.append(time.perf_counter())
            tokens.append(int(token))
    return {
        "prompt": PROMPT / (times[1] - times[0]),
        "text": (NEW - 1) / (times[-1] - times[1]),
        "tokens": tokens,
        "overhead": _overhead(session, ids),
    }


def _overhead(session: ort.InferenceSession, ids: list[int]) -> float:
    """What a token of a text takes beyond a run of the session alone, on a cache as large, as a share of that."""
    other = Decoder(session, 1)
    other.prefill([np.array(ids)], PROMPT)
    binding = other.token.binding
    more, bare = [], []
    for _ in range(TEXTS):
        coming = bsexport_runtime.stream(session, ids, NEW - PROMPT, stop_tokens=())
        next(coming)
        for _ in range(NEW - PROMPT - 1):
            start = time.perf_counter()
            ort.InferenceSession.run_with_iobinding(session, binding)
            middle = time.perf_counter()
            next(coming)
            bare.append(middle - start)
            more.append(time.perf_counter() - middle - bare[-1])
    return median(more) / median(bare)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))

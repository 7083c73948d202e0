"""Load a model once, in a process of its own, and print what it took: `python -m tests.bench.load_once JSON`.

The argument: {"kind": "native" | "numpy" | "fp32" | "fp32-unpacked", "path", "threads", "measure": "time" | "memory",
"limit": bytes of private memory beyond the import, or null}. Prints import_seconds; with "time" also
seconds and cpu_seconds, with "memory" the peak and the end of private resident memory beyond the import, in bytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def private_memory(key: str = "RssAnon") -> int:
    """A line of /proc/self/status, in bytes."""
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


class Peak:
    """The largest private resident memory while it is open, looked at every half millisecond."""

    def __enter__(self) -> Peak:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.0005):
            self.bytes = max(self.bytes, private_memory())


def loader(kind: str, path: str, threads: int) -> Callable[[], Any]:
    """What is measured; everything that it imports is imported here."""
    import onnxruntime as ort

    if kind in ("native", "numpy"):
        import bsexport_runtime

        if not bsexport_runtime.backend().startswith(kind):
            raise SystemExit(f"backend is {bsexport_runtime.backend()}, expected {kind}")
        return lambda: bsexport_runtime.load(path, threads=threads)
    options = ort.SessionOptions()
    if kind == "fp32-unpacked":
        options.add_session_config_entry("session.disable_prepacking", "1")
    return lambda: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked["kind"] == "numpy":
        os.environ["BSEXPORT_BACKEND"] = "numpy"
    import numpy
    import onnxruntime  # noqa: F401

    start = time.perf_counter()
    load = loader(asked["kind"], asked["path"], asked["threads"])
    result: dict[str, float] = {"import_seconds": time.perf_counter() - start}
    if asked["limit"]:
        limit = private_memory("VmData") + asked["limit"]
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = private_memory()
    if asked["measure"] == "memory":
        with Peak() as peak:
            session = load()
        result |= {"peak": peak.bytes - before, "end": private_memory() - before}
    else:
        start, processor = time.perf_counter(), time.process_time()
        session = load()
        result |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - processor}
    inputs = {entry.name: numpy.ones((1, 8), numpy.int64) for entry in session.get_inputs()}
    if not numpy.isfinite(session.run(None, inputs)[0]).all():
        raise SystemExit("the loaded model does not compute numbers")
    print(json.dumps(result))


if __name__ == "__main__":
    main()

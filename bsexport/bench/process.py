"""Run a measurement in a fresh process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bsexport.bench import worker
from bsexport.errors import BenchError


def in_process(job: worker.Job, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What worker.measure gives for this job, in a process of its own.

    environment: of that process, in place of this one's.
    Raises BenchError, which names the job, if the process dies or cannot load or run the model.
    """
    # -P: the folder of worker.py is no place to import from.
    command = [sys.executable, "-P", worker.__file__, json.dumps(asdict(job))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if done.returncode < 0:
        raise BenchError(f"{job.name}: the process that measured it was ended by {_signal(-done.returncode)}")
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise BenchError(f"{job.name}: cannot be measured: {reason or f'exit code {done.returncode}'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _signal(number: int) -> str:
    """Its name, and why the system sends it, where that is likely."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, which the system sends when memory runs out" if name == "SIGKILL" else name

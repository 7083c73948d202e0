"""The C library alone, without Python around it: what runtime/native/bench measures."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "runtime" / "native"
WHERE = ("cache", "whole", "around")


@dataclass
class Speeds:
    """10^9 weights a second of some blobs together, the best of all runs so far.

    decode: by type, kind of kernels ("portable", "sse4.1" ...) and place (of WHERE); memcpy: of as many float32.
    """

    weights: float = 0.0
    decode: dict[tuple[str, str, str], float] = field(default_factory=dict)
    encode: float = 0.0
    memcpy: float = 0.0

    @property
    def best(self) -> str:
        """The fastest kind of kernels."""
        return list(self.decode)[-1][1]

    def large(self, kind: str) -> float:
        """float32 into a large buffer, in the faster of both ways."""
        return max(self.decode["float32", kind, where] for where in WHERE[1:])


def build() -> Path:
    """The benchmark program. Raises CalledProcessError or FileNotFoundError where it cannot be compiled."""
    subprocess.run(["make", "-s", "-C", NATIVE, "bench"], check=True)
    return NATIVE / "build" / "bench"


def measure(program: Path, sets: Mapping[str, Path], found: dict[str, Speeds]) -> None:
    """Run the program on the blobs in each folder; what is faster than in `found` is entered there."""
    for name, folder in sets.items():
        run = subprocess.run([program, *sorted(folder.glob("*.bsxb"))], check=True, capture_output=True, text=True)
        now = _together(run.stdout.splitlines())
        best = found.setdefault(name, now)
        best.decode = {key: max(speed, best.decode[key]) for key, speed in now.decode.items()}
        best.encode, best.memcpy = max(best.encode, now.encode), max(best.memcpy, now.memcpy)


def _together(lines: Iterable[str]) -> Speeds:
    """The speeds of all blobs that the program has printed: seconds are added up, blob by blob."""
    all_of: dict[tuple[str, str, str], tuple[float, float]] = {}
    weights = total = 0.0

    def add(key: tuple[str, str, str], speed: str) -> None:
        so_far = all_of.get(key, (0.0, 0.0))
        all_of[key] = (so_far[0] + weights, so_far[1] + weights / max(float(speed), 1e-9))

    for line in lines:
        words = line.split()
        if "weights," in words:
            weights = float(words[words.index("weights,") - 1])
            total += weights
        elif words[0] in ("encode", "memcpy"):
            add((words[0], "", ""), words[1])
        elif words[0] in ("float32", "float16", "int8"):
            for where, speed in zip(WHERE, words[2:], strict=True):
                add((words[0], words[1], where), speed)
    speeds = {key: part / spent for key, (part, spent) in all_of.items()}
    encode, memcpy = speeds.pop(("encode", "", "")), speeds.pop(("memcpy", "", ""))
    return Speeds(total, speeds, encode, memcpy)

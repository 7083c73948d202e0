"""What one run of tests.bench.codec has measured."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """One coder on one set. Seconds are medians: of encoding, of decoding to integers and to float32 weights."""

    coder: str
    weights: int
    coded_bytes: int = 0
    encode: float = 0.0
    decode: float = 0.0
    floats: float | None = None

    @property
    def rate(self) -> float:
        """Bits per weight, everything counted."""
        return 8 * self.coded_bytes / self.weights


@dataclass
class Set:
    """All rows of one set of tensors. entropy: zeroth-order, per tensor, bits per weight. copy: seconds of a memcpy of
    the float32 weights. streams: bits of ours by part. faster: our decode speed over each other coder's, where it was
    measured side by side."""

    name: str
    weights: int
    zeros: float
    entropy: float
    copy: float
    rows: list[Row] = field(default_factory=list)
    streams: dict[str, float] = field(default_factory=dict)
    faster: dict[str, float] = field(default_factory=dict)

"""What the codec is meant to reach, beside what one run of tests.bench.codec measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.native import Speeds
from tests.bench.sets import Row, Set

REAL = "MiniLM 90% 0.004"  # the blobs of that set, for the C library
OURS, NUMPY = "**bsx**", "**bsx** (numpy fallback)"
ZEROS = (80, 90, 95)


@dataclass(frozen=True)
class Bar:
    """measured: None if it was not."""

    text: str
    goal: float
    measured: float | None
    at_most: bool = False

    @property
    def line(self) -> str:
        goal = f"at {'most' if self.at_most else 'least'} {self.goal:g}"
        if self.measured is None:
            return f"| {self.text} | {goal} | not measured | |"
        met = self.measured <= self.goal if self.at_most else self.measured >= self.goal
        return f"| {self.text} | {goal} | {self.measured:.3f} | {'met' if met else '**not met**'} |"


def table(
    real: Sequence[Set], synthetic: Sequence[Set], native: Mapping[str, Speeds], threads: float | None, prefix: str
) -> str:
    """All bars, one a line. prefix: the name of the real model's sets; threads: two threads' speed over one's."""
    bars = [
        *rates(real, synthetic, prefix),
        *absolute(native),
        *ratios(synthetic),
        *large(native),
        *fallback(synthetic),
        Bar("two threads over one, float32, GG 0.6, 80% zeros, wall clock", 1.7, threads),
        *encoding(native),
    ]
    return "\n".join(["| bar | goal | measured | |", "|---|---|---|---|", *(bar.line for bar in bars)])


def of_zeros(synthetic: Iterable[Set], shapes: Sequence[float]) -> list[Set]:
    """The sets of these shapes at 80 to 95% zeros."""
    names = {f"GG {shape:g}, {zeros}% zeros" for shape in shapes for zeros in ZEROS}
    return [found for found in synthetic if found.name in names]


def row(found: Set, start: str) -> Row | None:
    return next((row for row in found.rows if row.coder.startswith(start) and row.coder != NUMPY), None)


def worst(sets: Sequence[Set], ratio: Callable[[Set], float | None]) -> tuple[str, float | None]:
    """Where it is greatest, in brackets, and how much; of the sets for which it was measured."""
    known = [(value, found.name) for found in sets if (value := ratio(found)) is not None]
    if not known:
        return "", None
    value, name = max(known)
    return f" (worst: {name})", value


def over_peer(peer: str) -> Callable[[Set], float | None]:
    """Our size over that of another coder."""

    def ratio(found: Set) -> float | None:
        ours, other = row(found, OURS), row(found, peer)
        return None if ours is None or other is None else ours.coded_bytes / other.coded_bytes

    return ratio


def over_entropy(found: Set) -> float | None:
    ours = row(found, OURS)
    return None if ours is None else ours.rate / found.entropy


def rates(real: Sequence[Set], synthetic: Sequence[Set], prefix: str) -> Iterator[Bar]:
    pruned = [found for found in real if found.name.startswith((f"{prefix} pruned 80%", f"{prefix} pruned 90%"))]
    whole = [found for found in real if found.name.startswith(f"{prefix} pruned 0%")]
    drawn = of_zeros(synthetic, (0.3, 0.6, 1.0))
    for goal, sets in ((1.02, pruned), (1.03, whole), (1.10, drawn)):
        for found in sets:
            yield Bar(f"{found.name}: size over entropy", goal, over_entropy(found), at_most=True)
    for peer in ("DeepCABAC", "zstd -19", "xz"):
        for kind, sets in ((prefix, [*pruned, *whole]), ("GG 0.3, 0.6 and 1, 80 to 95% zeros", drawn)):
            where, found = worst(sets, over_peer(peer))
            yield Bar(f"{kind}: size over that of {peer}{where}", 1.0, found, at_most=True)
    for peer in ("pcodec", "ANS"):
        where, found = worst(pruned, over_peer(peer))
        yield Bar(f"{prefix}, pruned: size over that of {peer}{where}", 1.02, found, at_most=True)


def absolute(native: Mapping[str, Speeds]) -> Iterator[Bar]:
    """In G/s, into a buffer that stays in the cache."""
    for layout, to, kind, goals in (
        ("RL", "float32", "plain C", (1.6, 3.4, 4.8)),
        ("RL", "float32", "the best kernels", (1.6, 3.4, 4.8)),
        ("RL", "int8", "the best kernels", (2.8, 5, 8)),
        ("BM", "float32", "128-bit vectors", (3.7, 5, 5)),
    ):
        for zeros, goal in zip(ZEROS, goals, strict=True):
            text = f"{layout}, GG 0.6, {zeros}% zeros, to {to} in cache, {kind}, G/s"
            yield Bar(text, goal, _in_cache(native, f"{layout} {zeros}", to, kind))
    measured = _in_cache(native, REAL, "float32", "the best kernels")
    yield Bar("MiniLM pruned 90%, step 0.004, to float32 in cache, the best kernels, G/s", 2.2, measured)


def _in_cache(native: Mapping[str, Speeds], name: str, to: str, kind: str) -> float | None:
    if name not in native:
        return None
    names = {"plain C": ("portable",), "128-bit vectors": ("sse4.1", "neon"), "the best kernels": (native[name].best,)}
    speeds = (native[name].decode.get((to, kernels, "cache")) for kernels in names[kind])
    return next((speed for speed in speeds if speed is not None), None)


COMPARED = {"zstd -3": 3, "zstd -19": 2, "pcodec": 4, "DeepCABAC": 100}


def ratios(synthetic: Sequence[Set]) -> Iterator[Bar]:
    for peer, goal in COMPARED.items():
        for found in of_zeros(synthetic, (0.6,)):
            measured = next((ratio for name, ratio in found.faster.items() if name.startswith(peer)), None)
            yield Bar(f"{found.name}, int8 to int8: speed over that of {peer}", goal, measured)


def large(native: Mapping[str, Speeds]) -> Iterator[Bar]:
    for zeros in ZEROS:
        speeds = native.get(f"RL {zeros}")
        measured = speeds.large(speeds.best) / speeds.memcpy if speeds else None
        yield Bar(f"RL, GG 0.6, {zeros}% zeros, float32 into a large warm buffer: speed over memcpy", 1.3, measured)


def fallback(synthetic: Sequence[Set]) -> Iterator[Bar]:
    for zeros, goal in zip(ZEROS, (0.07, 0.14, 0.24), strict=True):
        rows = [row for found in synthetic if found.name == f"GG 0.6, {zeros}% zeros" for row in found.rows]
        speeds = [row.weights / row.floats * 1e-9 for row in rows if row.coder == NUMPY and row.floats]
        yield Bar(f"numpy fallback, GG 0.6, {zeros}% zeros, to float32, G/s", goal, max(speeds, default=None))


def encoding(native: Mapping[str, Speeds]) -> Iterator[Bar]:
    """Without the choice of layout."""
    for name, speeds in native.items():
        yield Bar(f"encode, {name}, G/s", 0.3, speeds.encode)

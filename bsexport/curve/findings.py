"""What a curve says, in words: how far a model can be pruned, and how small a package gets, at what cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bsexport.recipe import step_text

TOLERANCES = (0.005, 0.01)  # of the primary figure: half a point and one point


def findings(model: dict[str, Any], primary: str) -> list[dict[str, str]]:
    """Sentences about one model of a record, as {"text", "command"}; the command makes the package that is spoken of.

    A figure is within a tolerance if it is at most so far below the dense model's; of pruning ratios, all smaller ones
    at the same step have to be, too.
    """
    dense, *points = model["points"]
    base = dense["figures"][primary]
    surely = f"95% confidence {base['low']:.2%} to {base['high']:.2%}"
    said = [_said(f"dense: {primary} {base['value']:.2%}, {surely}{_perplexity(dense)}")]
    for tolerance in TOLERANCES:
        least = base["value"] - tolerance
        within = f"within {100 * tolerance:g} {'point' if tolerance == 0.01 else 'points'} of it"
        said += _pruning(points, primary, least, within)
        said += _smallest(points, primary, least, within)
    return said


def _pruning(points: list[dict[str, Any]], primary: str, least: float, within: str) -> Iterator[dict[str, str]]:
    """The largest ratio, over all steps, that is reached without falling below."""
    if len({point["prune"] for point in points}) < 2:
        return
    reached: list[dict[str, Any]] = []
    for step in {point["step"] for point in points}:
        row = sorted((point for point in points if point["step"] == step), key=lambda point: point["prune"])
        for point in row:
            if point["figures"][primary]["value"] < least:
                break
            reached.append(point)
    if not reached:
        yield _said(f"{within}: no pruning ratio that was measured")
        return
    best = max(reached, key=lambda point: (point["prune"], point["step"]))
    at = f"{_with(best, primary)}, step {step_text(best['step'])}"
    yield _said(f"{within}: pruning up to {100 * best['prune']:.4g}% ({at})", best["command"])


def _smallest(points: list[dict[str, Any]], primary: str, least: float, within: str) -> Iterator[dict[str, str]]:
    near = [point for point in points if point["figures"][primary]["value"] >= least]
    if not near:
        yield _said(f"{within}: no package that was measured")
        return
    best = min(near, key=lambda point: point["weights_bytes"])
    size = f"{best['weights_bytes']:,} bytes, {best['of_fp32']:.1%} of fp32, {best['bits_per_weight']:.2f} bits/weight"
    yield _said(f"{within}: smallest package {size} ({_with(best, primary)})", best["command"])


def _with(point: dict[str, Any], primary: str) -> str:
    return f"{primary} {point['figures'][primary]['value']:.2%}{_perplexity(point)}"


def _perplexity(point: dict[str, Any]) -> str:
    """Of a language model, what it is spoken of by."""
    found = point["figures"].get("perplexity", {}).get("value")
    return "" if found is None else f", perplexity {found:.4g}"


def _said(text: str, command: str = "") -> dict[str, str]:
    return {"text": text, "command": command}

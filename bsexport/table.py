"""A report or a manifest as text for people."""

from __future__ import annotations

import re
from typing import Any

from bsexport.int8 import LEFT_UNCODED, Int8Report
from bsexport.report import Report
from bsexport_runtime.fields import printable
from bsexport_runtime.package import GRAPH_FILES

LABEL = 18  # columns of the first column
NUMBER = "\0"  # stands for a number in a name; no printable name has it


def report_text(report: Report) -> str:
    """The table that pack ends with: sizes, rates, sparsity, and every tensor that was not pruned or not coded."""
    total = report.summary()
    return "\n".join(
        [
            *_size_lines(total),
            *_rate_lines(total),
            *_pruning_lines(report, total),
            *_uncoded_lines(report),
            *(_int8_lines(report.int8, total) if report.int8 else []),
        ]
    )


def manifest_text(manifest: dict[str, Any]) -> str:
    """A package's manifest as text: recipe, sizes, and a line for every tensor."""
    graphs = [entry for name, entry in manifest["files"].items() if name in GRAPH_FILES]
    graph_bytes = sum(entry["bytes"] for entry in graphs)
    total = {**manifest["summary"], "graph_bytes": graph_bytes}
    recipe = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in manifest["recipe"].items()
        if value not in (None, [])
    )
    lines = [f"task {manifest['task']}; {recipe}", *_size_lines(total), *_rate_lines(total)]
    lines.append("layouts with the code of levels, or of runs, then levels: E exp-Golomb, R Golomb-Rice, p in pairs")
    lines.append(f"{'bits/weight':>11} {'zeros':>7} {'layout':10}  tensor")
    return "\n".join([*lines, *map(_tensor_line, manifest["tensors"])])


def _tensor_line(tensor: dict[str, Any]) -> str:
    bits = 8 * tensor["bytes"] / tensor["weights"]
    zeros = tensor["zeros"] / tensor["weights"]
    shape = " x ".join(map(str, tensor["shape"]))
    why = f" ({tensor['why']})" if tensor["why"] else ""
    name = f"{printable(tensor['name'])}  {tensor['dtype']} {shape}{why}"
    return f"{bits:11.3f} {zeros:7.1%} {_layout_text(tensor):10}  {name}"


def _layout_text(tensor: dict[str, Any]) -> str:
    """A tensor's layout and codes in short: "RAW", "EG E3", "BM R1p", "RL R2 E1"."""
    present = [code for code in (tensor["run_code"], tensor["level_code"]) if code]
    short = [code.replace("eg ", "E").replace("rice ", "R") for code in present]
    return f"{' '.join([tensor['layout'], *short])}{tensor['pairs'] * 'p'}"


def _size_lines(total: dict[str, Any]) -> list[str]:
    if not total["weights"]:
        return [f"{'graphs':{LABEL}}{total['graph_bytes']:14,}", "there are no weights"]
    rows = [
        ("fp32 weights", total["fp32_bytes"]),
        ("packed weights", total["weights_bytes"]),
        ("  codewords", total["codeword_bytes"]),
        ("  side information", total["side_bytes"]),
        ("  uncoded tensors", total["uncoded_bytes"]),
        ("graphs", total["graph_bytes"]),
    ]
    lines = [f"{'':{LABEL}}{'bytes':>14}{'of fp32':>10}{'bits/weight':>13}"]
    for label, size in rows:
        lines.append(f"{label:{LABEL}}{size:14,}{size / total['fp32_bytes']:10.2%}{8 * size / total['weights']:13.3f}")
    return lines


def _rate_lines(total: dict[str, Any]) -> list[str]:
    if not total["coded_weights"]:
        return ["nothing was coded"]
    return [
        f"bits per weight of the {total['coded_weights']:,} coded weights:",
        f"  packed {total['coded_bits']:.3f} (everything counted)   entropy {total['entropy_bits']:.3f}",
        f"  exp-Golomb alone: best k {total['eg_bits']:.3f}   k=0 {total['eg0_bits']:.3f}   "
        f"the paper's (k=0, one codebook) {total['paper_bits']:.3f}",
    ]


def _pruning_lines(report: Report, total: dict[str, Any]) -> list[str]:
    if not total["weights"]:
        return []
    everywhere = f"{total['sparsity']:.1%} of all weights are zero"
    if total["sparsity_pruned"] is None:
        return [f"{'sparsity':{LABEL}}{everywhere}; nothing was pruned"]
    limit = f" (|w| <= {report.threshold.magnitude:.6g})" if report.recipe.scope == "global" else ""
    lines = [f"{'sparsity':{LABEL}}{total['sparsity_pruned']:.1%} of those that took part{limit}; {everywhere}"]
    spared = [tensor.name for tensor in report.tensors if not tensor.pruned and not tensor.why]
    if spared:
        lines += ["protected from pruning", *(f"    {name}" for name in draw_together(spared))]
    return lines


def _uncoded_lines(report: Report) -> list[str]:
    """Every tensor that was left uncoded, by reason."""
    reasons: dict[str, list[str]] = {}
    for tensor in report.tensors:
        if tensor.why:
            reasons.setdefault(tensor.why, []).append(tensor.name)
    if report.inline:
        reasons["small, inline in the graph"] = list(report.inline)
    lines = ["left uncoded"] if reasons else []
    for why, names in reasons.items():
        lines.append(f"  {why} ({len(names)})")
        lines.extend(f"    {name}" for name in draw_together(names))
    return lines


def _int8_lines(int8: Int8Report, total: dict[str, Any]) -> list[str]:
    """The weights in mode int8: their memory, those that stay as they are by reason, and the rows with own scales."""
    arena = int8.form.arena_bytes
    lines = [
        f"{'in mode int8':{LABEL}}{arena:14,}{arena / total['fp32_bytes']:10.2%}   of memory for weights; "
        f"{len(int8.form.places) - len(int8.why)} of {len(int8.form.places)} tensors in int8"
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in int8.why.items():
        if not why.startswith(LEFT_UNCODED):  # they are listed already
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        lines.append(f"  coded, but not in int8: {why} ({len(names)})")
        lines.extend(f"    {name}" for name in draw_together(names))
    if not int8.rescaled:
        return [*lines, "  every level is within +-127: the int8 weights are exact"]
    count = sum(number for number, _ in int8.rescaled.values())
    lines.append(
        f"  {count:,} rows or columns go beyond +-127 and have a scale of their own, of which levels are rounded"
    )
    lines.extend(f"    {number:,} {what} of {printable(name)}" for name, (number, what) in int8.rescaled.items())
    return lines


def draw_together(names: list[str]) -> list[str]:
    """The names, those that differ in numbers alone as one: ["a.0.b", "a.1.b", "c"] -> ["a.{0,1}.b", "c"]."""
    groups: dict[str, list[list[str]]] = {}
    for name in map(printable, names):
        groups.setdefault(re.sub(r"\d+", NUMBER, name), []).append(re.findall(r"\d+", name))
    return [
        _fill(template, [list(dict.fromkeys(column)) for column in zip(*numbers, strict=True)])
        for template, numbers in groups.items()
    ]


def _fill(template: str, columns: list[list[str]]) -> str:
    filled = iter([column[0] if len(column) == 1 else "{" + _range(column) + "}" for column in columns])
    return re.sub(NUMBER, lambda match: next(filled), template) if columns else template


def _range(numbers: list[str]) -> str:
    values = [int(number) for number in numbers]
    if len(values) > 2 and values == list(range(values[0], values[0] + len(values))):
        return f"{values[0]}..{values[-1]}"
    return ",".join(numbers)

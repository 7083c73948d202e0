"""The statistics of a model as text for people."""

from __future__ import annotations

from bsexport.backslash.gaussian import LEAST_SHAPE
from bsexport.stats.codes import LAYOUTS, ORDERS, PACKED, Codes
from bsexport.stats.figures import Figures, Stats, TensorFigures, per_weight
from bsexport.stats.fit import BINS_PER_OCTAVE
from bsexport.table import draw_together
from bsexport_runtime.fields import printable

LABEL = 34  # columns of the first column
FIT_LABELS = {
    "moments": "generalized Gaussian, by moments",
    "likelihood": "  by maximum likelihood",
    "laplace": "Laplace",
    "gaussian": "Gaussian",
}
_TENSOR_COLUMNS = ("entropy", "huffman", "eg0", "eg", "rice", PACKED)


def stats_text(found: Stats) -> str:
    """The table that stats prints: fits, bits of each code, a line for every tensor, and what is left out."""
    pruned = f"pruned {found.recipe.prune:.0%}, " if found.recipe.prune else ""
    lines = [f"{printable(found.name)}: {pruned}step {found.recipe.step:g}"]
    if found.whole is None:
        lines.append("no tensor would be coded")
    else:
        lines += [*_fit_lines(found.whole, len(found.tensors)), *_code_lines(found, found.whole)]
        lines += _tensor_lines(found.tensors)
    if found.uncoded:
        lines.append("left out, as pack does not code them")
        for why in dict.fromkeys(found.uncoded.values()):
            names = [name for name, reason in found.uncoded.items() if reason == why]
            lines += [f"  {why} ({len(names)})", *(f"    {name}" for name in draw_together(names))]
    return "\n".join(lines)


def _fit_lines(whole: Figures, tensors: int) -> list[str]:
    share = whole.zeros / whole.weights
    lines = [
        f"{whole.weights:,} weights of {tensors} tensors, rms {whole.rms:.4g}; "
        f"at this step {share:.1%} are zero, and {whole.distinct:,} levels are in use"
    ]
    if not whole.fits:
        return [*lines, "every weight is zero: no distribution fits"]
    lines.append(
        f"{f'fitted ({BINS_PER_OCTAVE} bins to an octave)':{LABEL}}{'shape':>8}{'scale':>12}{'bits/weight lost':>19}"
    )
    for name, label in FIT_LABELS.items():
        if (fit := whole.fits.get(name)) is not None:
            lines.append(f"{label:{LABEL}}{fit.shape:8.3f}{fit.scale:12.4g}{fit.divergence:19.4f}")
        else:
            lines.append(f"{label:{LABEL}}none above a shape of {LEAST_SHAPE:g}: too many weights are exactly zero")
    return lines


def _code_lines(found: Stats, whole: Figures) -> list[str]:
    one, each = per_weight(whole.codes.bits, found.weights), per_weight(found.bits, found.weights)
    lines = [f"{'bits/weight':{LABEL}}{'one codebook':>14}{'one per tensor':>16}"]
    for code, label in code_labels(whole.codes).items():
        first = f"{one[code]:14.3f}" if code in one else f"{'':14}"
        lines.append(f"  {label:{LABEL - 2}}{first}{each[code]:16.3f}")
    return lines


def code_labels(codes: Codes) -> dict[str, str]:
    """What to call each code in a table or plot of codewords, then blobs; the best orders are those of one codebook."""
    orders = {f"eg{k}": f"exp-Golomb, k={k}" for k in ORDERS}
    return {
        "entropy": "entropy",
        "fixed": "fixed length",
        "huffman": "Huffman",
        **orders,
        "eg": f"exp-Golomb, best k (here {codes.eg_order})",
        "rice": f"Golomb-Rice, best k (here {codes.rice_order})",
        **{name: f"layout {name.removeprefix('layout_').upper()}, all counted" for name in LAYOUTS},
        PACKED: "packed, all counted",
    }


def _tensor_lines(tensors: tuple[TensorFigures, ...]) -> list[str]:
    columns = "".join(f"{name:>9}" for name in _TENSOR_COLUMNS)
    lines = [f"{'shape':>7}{'likely':>8}{'rms':>9}{'zeros':>8}{columns} layout  tensor"]
    for tensor in tensors:
        figures = tensor.figures
        shapes = [figures.fits.get(name) for name in ("moments", "likelihood")]
        moments, likely = (f"{fit.shape:.3f}" if fit is not None else "-" for fit in shapes)
        bits = "".join(f"{tensor.bits[name] / figures.weights:9.3f}" for name in _TENSOR_COLUMNS)
        start = f"{moments:>7}{likely:>8}{figures.rms:9.3g}{figures.zeros / figures.weights:8.1%}"
        lines.append(f"{start}{bits} {tensor.layout:6}  {printable(tensor.name)}")
    return lines

"""How plots are drawn: the same bytes for the same figures, and text that stays text."""

from __future__ import annotations

from typing import Any


def style(salt: str = "bsexport") -> Any:
    """A context for matplotlib. salt: of the ids in an SVG; two SVGs in one page need two."""
    import matplotlib

    return matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False})

"""The style of all figures: colors that color-blind readers can tell apart, and Vega's settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

INK, MUTED, LINE, PAPER = "var(--ink)", "var(--muted)", "var(--line)", "var(--paper)"
BLUE, ORANGE, GREEN = "var(--blue)", "var(--orange)", "var(--green)"

PRINTED = {
    "ink": "#1b1b1b",
    "muted": "#6b6b6b",
    "line": "#d9d9d9",
    "paper": "#ffffff",
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
}
"""Colors on white. Those of data come from the palette of Okabe and Ito. The page's style sheet defines the same names
for light and dark."""

CONFIG: Mapping[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "aria": False,
    "mark": {"aria": False},
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": INK, "labelFontSize": 13, "labelFontWeight": "bold", "labelAnchor": "start"},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 400},
    "title": {"color": INK, "fontSize": 15, "anchor": "start", "offset": 14},
    "text": {"color": INK, "fontSize": 12},
}
"""Charts use the color names of the page's style sheet, so that one chart serves light, dark and print. The page itself
describes each figure to screen readers."""


def printed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart with colors for paper instead of the page's color names."""
    text = re.sub(r"var\(--(\w+)\)", lambda name: PRINTED[name[1]], json.dumps(spec))
    replaced: dict[str, Any] = json.loads(text)
    return replaced

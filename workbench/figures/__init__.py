"""Results in, figures out: the only importer of matplotlib and plotly, and only when a figure is drawn."""

from workbench.figures.figure import KINDS, figure
from workbench.figures.spec import Axis, Bars, FigureSpec, Heat, Line, Panel, Points, Rule

__all__ = ["KINDS", "Axis", "Bars", "FigureSpec", "Heat", "Line", "Panel", "Points", "Rule", "figure"]

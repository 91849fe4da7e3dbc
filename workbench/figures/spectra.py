"""α over depth, of a Spectrum and of a Farms."""

import math

from workbench.errors import FigureError
from workbench.figures.provenance import depth_label, story
from workbench.figures.spec import OTHER_ROLE, Axis, FigureSpec, Mark, Panel, Points, Rule, limits, ordered
from workbench.results import many
from workbench.spectra import Farms, Spectrum

VERDICT_ROLES = {
    "typical": "first",
    "heavy": "second",
    "weak": "third",
    "heavier than noise": "first",
    "lighter than noise": "third",
    "no tail": "muted",
}


def alpha_over_depth(spectrum: Spectrum, layer: str | None) -> FigureSpec:
    """α with its standard error over depth, a symbol per verdict; `layer` is ringed."""
    table = spectrum.tables["layers"]
    marks: list[Mark] = verdict_points(spectrum)
    if not marks:
        raise FigureError("no layer of this spectrum has a fitted tail, so there is no α to draw; see .frame().reason.")
    if layer is not None and math.isfinite((row := spectrum.row(layer))["alpha"]):
        marks.append(Points(x=(float(row["depth"]),), y=(row["alpha"],), ids=(layer,), role="accent"))
    shown = [alpha for alpha in table["alpha"] if math.isfinite(alpha)]
    ends = [a + side * e for a, e in zip(table["alpha"], table["alpha_error"], strict=True) for side in (-1, 1)]
    thresholds = [Rule(axis="y", value=value) for value in (2.0, 6.0)] if "search" == _rule(spectrum) else []
    panel = Panel(
        x=Axis(label=depth_label(spectrum), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="α", limits=limits([1.0, *ends])),
        marks=(*thresholds, *marks),
    )
    return FigureSpec(
        kind="alpha",
        title=f"Power-law exponent α, {many(len(shown), 'layer')}",
        panels=(panel,),
        provenance=story(spectrum),
    )


def farms_over_depth(farms: Farms, layer: str | None) -> FigureSpec:
    """α of the windows beside α of the full matrix, both with standard errors, over depth; `layer` is ringed."""
    table = farms.tables["layers"]
    marks: list[Mark] = verdict_points(farms)
    if not marks:
        raise FigureError("no layer of this result has a fitted tail, so there is no α to draw; see .frame().reason.")
    rows = [row for row, alpha in enumerate(table["alpha_full"]) if math.isfinite(alpha)]
    full = Points(
        x=tuple(float(table["depth"][row]) for row in rows),
        y=tuple(table["alpha_full"][row] for row in rows),
        error=tuple(table["alpha_full_error"][row] for row in rows),
        ids=tuple(table["layer"][row] for row in rows),
        role=OTHER_ROLE,
        label="full matrix",
    )
    if layer is not None and math.isfinite((ringed := farms.row(layer))["alpha"]):
        marks.append(Points(x=(float(ringed["depth"]),), y=(ringed["alpha"],), ids=(layer,), role="accent"))
    ends = [
        a + side * e
        for name in ("alpha", "alpha_full")
        for a, e in zip(table[name], table[f"{name}_error"], strict=True)
        for side in (-1, 1)
    ]
    panel = Panel(
        x=Axis(label=depth_label(farms), unit="matrix layers", limits=limits(table["depth"])),
        y=Axis(label="α", limits=limits([1.0, *ends, *table["alpha"], *table["alpha_full"]])),
        marks=(full, *marks),
    )
    rules, shown = farms.meta["parameters"], sum(map(math.isfinite, table["alpha"]))
    windows = f"windows of {many(rules['window'], 'row')} at aspect ratio {rules['aspect_ratio']:g}"
    title = f"α of {windows}, {many(shown, 'layer')}"
    return FigureSpec(kind="alpha", title=title, panels=(panel,), provenance=story(farms))


def verdict_points(result: Spectrum | Farms) -> list[Mark]:
    """α with its standard error over depth, a symbol per verdict."""
    table = result.tables["layers"]
    marks: list[Mark] = []
    for word in ordered(table["verdict"], VERDICT_ROLES):
        rows = [
            row for row, found in enumerate(table["verdict"]) if found == word and math.isfinite(table["alpha"][row])
        ]
        if rows:
            marks.append(
                Points(
                    x=tuple(float(table["depth"][row]) for row in rows),
                    y=tuple(table["alpha"][row] for row in rows),
                    error=tuple(table["alpha_error"][row] for row in rows),
                    ids=tuple(table["layer"][row] for row in rows),
                    role=VERDICT_ROLES.get(word, OTHER_ROLE),
                    label=word,
                )
            )
    return marks


def _rule(spectrum: Spectrum) -> object:
    return spectrum.meta["parameters"]["xmin"]

"""Several figures as one, with a letter for each panel."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase
from typing import Any, TypeAlias

from workbench.errors import FigureError
from workbench.figures.spec import Bars, FigureSpec, Heat, Line, Mark, Panel, Points, Rule

Labelled: TypeAlias = Line | Points | Bars | Rule
Entry: TypeAlias = tuple[str, str, str]  # of a legend: label, mark, role


def together(specs: Sequence[Any], columns: int, title: str) -> FigureSpec:
    """What `FigureSpec.beside` says."""
    wrong = next((spec for spec in specs if not isinstance(spec, FigureSpec)), None)
    if wrong is not None:
        raise FigureError(f"beside takes figures, as wb.figure gives them; got a {type(wrong).__name__}.")
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise FigureError(f"columns={columns!r}: expected how many panels stand beside each other, from 1 on.")
    if any(panel.letter for spec in specs for panel in spec.panels):
        raise FigureError("a figure that was put together has its letters: put all of them together in one call.")
    count = sum(len(spec.panels) for spec in specs)
    if count > len(ascii_lowercase):
        raise FigureError(f"{count} panels in one figure: there are letters for {len(ascii_lowercase)}.")
    letters = iter(ascii_lowercase)
    lettered = [
        [replace(panel, letter=next(letters), title=_headline(spec.title, panel.title)) for panel in spec.panels]
        for spec in specs
    ]
    return FigureSpec(
        kind=" beside ".join(dict.fromkeys(spec.kind for spec in specs)),
        title=title,
        panels=_with_one_legend(lettered),
        columns=columns,
        provenance=_provenance(specs, lettered),
    )


def _headline(title: str, line: str) -> str:
    """A figure's title and its panel's, the same said once."""
    return f"{title}: {line}" if title and line and line != title else line or title


def _entries(panels: Sequence[Panel]) -> dict[Entry, set[str]]:
    """What the legend of one figure has, and the letters of the panels where it is drawn, with its label or without."""
    marks = [(panel.letter, mark) for panel in panels for mark in panel.marks if not isinstance(mark, Heat)]
    entries = {_entry(mark) for _, mark in marks if mark.label}
    return {
        entry: {letter for letter, mark in marks if _entry(mark)[1:] == entry[1:] and mark.label in ("", entry[0])}
        for entry in sorted(entries)
    }


def _entry(mark: Labelled) -> Entry:
    return mark.label, type(mark).__name__, mark.role


def _with_one_legend(figures: Sequence[Sequence[Panel]]) -> tuple[Panel, ...]:
    """The panels; labels say whose they are, unless all legends are the same."""
    legends = [_entries(panels) for panels in figures]
    panels = tuple(panel for own in figures for panel in own)
    letters = {panel.letter for panel in panels}
    owners: dict[Entry, set[str]] = {}
    for entry, own in (pair for legend in legends for pair in legend.items()):
        owners.setdefault(entry, set()).update(own)
    if all(own == letters for own in owners.values()):
        return panels
    return tuple(replace(panel, marks=tuple(_owned(mark, owners) for mark in panel.marks)) for panel in panels)


def _owned(mark: Mark, owners: Mapping[Entry, Iterable[str]]) -> Mark:
    if isinstance(mark, Heat) or not mark.label:
        return mark
    return replace(mark, label=f"{mark.label} ({', '.join(sorted(owners[_entry(mark)]))})")


def _provenance(specs: Sequence[FigureSpec], figures: Sequence[Sequence[Panel]]) -> dict[str, str]:
    """Every fact once if it is the same for all, else with the letters of the panels that it is of."""
    whose = [[panel.letter for panel in own] for own in figures]
    facts: dict[str, str] = {}
    for key in dict.fromkeys(key for spec in specs for key in spec.provenance):
        values = [spec.provenance.get(key, "") for spec in specs]
        told: dict[str, list[str]] = {}
        for value, own in zip(values, whose, strict=True):
            told.setdefault(value, []).extend(own)
        facts[key] = (
            values[0]
            if len(told) == 1
            else " | ".join(f"{', '.join(own)}: {value}" for value, own in told.items() if value)
        )
    return facts

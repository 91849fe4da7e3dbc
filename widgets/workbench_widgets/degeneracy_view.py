"""What every view of `wb.ui.DegeneracyExplorer` has, and numbers under sliders."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets as ipw

from workbench_widgets.degeneracy_inputs import DegeneracyInputs
from workbench_widgets.layered_view import LayeredView
from workbench_widgets.style import status_html


class DegeneracyView(LayeredView):
    """A view of a network over data."""

    inputs: DegeneracyInputs


def numbers_html(numbers: Mapping[str, float]) -> str:
    """A loss and metrics, to read."""
    return " · ".join(f"{name} {number:.5g}" for name, number in numbers.items() if not math.isnan(number))


def show_numbers(line: ipw.HTML, what: str, found: object) -> None:
    """Loss and metrics under a slider, or the error in their place."""
    if isinstance(found, Exception):
        line.value = status_html(str(found), error=True)
    elif isinstance(found, Mapping):
        line.value = status_html(f"{what}: {numbers_html(found)}")


def counts(total: int, *more: int) -> Sequence[int]:
    """Places of a slider over 0 … total: each up to 20, then steps of a twentieth, the total, and `more`."""
    found = list(range(min(20, total) + 1))
    while (following := found[-1] + max(1, found[-1] // 20)) < total:
        found.append(following)
    return sorted({*found, *more, total})

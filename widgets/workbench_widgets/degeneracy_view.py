"""What every view of `wb.ui.DegeneracyExplorer` has, and the places of its sliders."""

from collections.abc import Sequence

from workbench_widgets.degeneracy_inputs import DegeneracyInputs
from workbench_widgets.layered_view import LayeredView


class DegeneracyView(LayeredView):
    """A view of a network over data."""

    inputs: DegeneracyInputs


def counts(total: int, *more: int) -> Sequence[int]:
    """Places of a slider over 0 … total: each up to 20, then steps of a twentieth, the total, and `more`."""
    found = list(range(min(20, total) + 1))
    while (following := found[-1] + max(1, found[-1] // 20)) < total:
        found.append(following)
    return sorted({*found, *more, total})

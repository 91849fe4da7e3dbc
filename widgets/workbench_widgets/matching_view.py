"""The matching: the objective while it rises, the distances of the layers, and their singular vectors."""

from typing import Any, ClassVar

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import ConnectivityView
from workbench_widgets.view import Drawing


class MatchingView(ConnectivityView):
    """The objective per sweep and the L2 reduction per layer."""

    NAME: ClassVar[str] = "matching"
    SHOWS: ClassVar[type[wb.Result]] = wb.Matching
    FIGURES: ClassVar[tuple[str, ...]] = ("objective", "reduction")
    RINGED: ClassVar[frozenset[str]] = frozenset({"reduction"})
    TABLE: ClassVar[str | None] = "layers"
    HEIGHT: ClassVar[int] = 300

    @property
    def widgets(self) -> list[Any]:
        """The controls of the matching."""
        return [*self.inputs.matching_widgets, self.inputs.gammas]

    def call(self) -> Call:
        """`wb.match`, or `wb.match_many` of three checkpoints and more."""
        return self.inputs.matching()


class AlignmentView(MatchingView):
    """The alignment of singular vectors, before and after."""

    NAME: ClassVar[str] = "alignment"
    FIGURES: ClassVar[tuple[str, ...]] = ("alignment",)
    RINGED: ClassVar[frozenset[str]] = frozenset({"alignment"})
    TABLE: ClassVar[str | None] = "alignment"
    HEIGHT: ClassVar[int] = 420

    def alive(self, partial: wb.Result) -> Drawing:
        """The objective: singular vectors come last."""
        return Drawing(partial, "", "objective")

    def cell(self, result: wb.Result, x: float, y: float) -> tuple[str, ...]:
        """Rows are layers by depth."""
        table = result.tables["alignment"]
        by_depth = sorted(zip(table["depth"], table["layer"], strict=True), key=lambda pair: pair[0])
        names = list(dict.fromkeys(layer for _, layer in by_depth))
        return (names[round(y)],) if 0 <= round(y) < len(names) else ()

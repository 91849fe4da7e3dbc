"""The matching: the objective while it rises, the distances of the layers, and their singular vectors."""

from typing import Any, ClassVar

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import Drawing, View


class MatchingView(View):
    """The objective per sweep and the L2 reduction per layer."""

    NAME: ClassVar[str] = "matching"
    SHOWS: ClassVar[type[wb.Result]] = wb.Matching
    FIGURES: ClassVar[tuple[str, ...]] = ("objective", "reduction")
    RINGED: ClassVar[frozenset[str]] = frozenset({"reduction"})
    TABLE: ClassVar[str | None] = "layers"

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

    def alive(self, partial: wb.Result) -> Drawing:
        """The objective: singular vectors come last."""
        return Drawing(partial, "", "objective")

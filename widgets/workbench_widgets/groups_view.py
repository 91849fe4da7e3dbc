"""Which units may change places: groups as a graph, and why the other axes keep their order."""

from typing import ClassVar

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import ConnectivityView


class GroupsView(ConnectivityView):
    """Permutation groups."""

    NAME: ClassVar[str] = "groups"
    SHOWS: ClassVar[type[wb.Result]] = wb.PermutationGroups
    FIGURES: ClassVar[tuple[str, ...]] = ("graph",)
    RINGED: ClassVar[frozenset[str]] = frozenset({"graph"})
    TABLE: ClassVar[str | None] = "groups"

    def call(self) -> Call:
        """`wb.permutation_groups`."""
        return self.inputs.groups()

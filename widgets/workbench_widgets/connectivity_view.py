"""What every view of `wb.ui.ConnectivityExplorer` has."""

from typing import Any

import pandas as pd

from workbench_widgets.connectivity_inputs import ConnectivityInputs
from workbench_widgets.view import View


class ConnectivityView(View):
    """A view whose tables name layers, tensors or groups."""

    inputs: ConnectivityInputs

    def layers(self, result: Any, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """The layers that each row of a table stands for: a tensor's, or all those of a group."""
        if "layer" not in frame and "tensor" in frame:
            return [self.layers_of(tensor) for tensor in frame["tensor"]]
        if "layer" not in frame and "group" in frame:
            members = result.structure.members()
            return [self.layers_of(*members.get(group, ())) for group in frame["group"]]
        return super().layers(result, frame)

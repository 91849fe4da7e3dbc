"""The tabs of a workbench: what each is about, and the explorer that is made when it is first opened."""

from typing import Any

import ipywidgets as ipw

from workbench_widgets.atlas import AtlasExplorer
from workbench_widgets.browser import CheckpointBrowser
from workbench_widgets.connectivity import ConnectivityExplorer
from workbench_widgets.degeneracy import DegeneracyExplorer
from workbench_widgets.explorer import Explorer
from workbench_widgets.signatures import SignatureExplorer
from workbench_widgets.spectrum import SpectrumExplorer
from workbench_widgets.style import Theme

MEANINGS = {
    "browser": "what is in a checkpoint",
    "spectra": "eigenvalues of weights and their tails",
    "connectivity": "what lies between two networks",
    "degeneracy": "what of a network does nothing",
    "signatures": "what changed between models, signatures, merges",
    "atlas": "the results of the others joined by layer",
}


class TabBar(ipw.ToggleButtons):
    """A button for each tab.

    Args:
        tab: the one that is open.
    """

    def __init__(self, tab: str) -> None:
        super().__init__(
            options=list(MEANINGS),
            value=tab,
            description="Tabs",
            tooltip="what is looked at",
            tooltips=list(MEANINGS.values()),
            style={"description_width": "0", "button_width": "116px"},  # all in one line beside the models
            _dom_classes=("wb-tabs",),
        )


def explorer_of(tab: str, evaluator: Any, theme: Theme) -> Explorer:
    """A new explorer for a tab.

    Args:
        tab: one of `MEANINGS`.
        evaluator: of the networks, or None.
        theme: as of the workbench.
    """
    plain = {"browser": CheckpointBrowser, "spectra": SpectrumExplorer, "atlas": AtlasExplorer}
    if tab in plain:
        return plain[tab](theme=theme)
    running = {
        "connectivity": ConnectivityExplorer,
        "degeneracy": DegeneracyExplorer,
        "signatures": SignatureExplorer,
    }
    return running[tab](evaluator=evaluator, theme=theme)

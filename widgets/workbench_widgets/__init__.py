"""Explorers: thin shells over workbench's public names, shown in JupyterLab.

Reached as `wb.ui`. Every explorer has `.result`, `.selection`, `.error`, `.code()` and a headless `.run()`.
"""

from workbench_widgets.atlas import AtlasExplorer
from workbench_widgets.browser import CheckpointBrowser
from workbench_widgets.call import Call
from workbench_widgets.connectivity import ConnectivityExplorer
from workbench_widgets.degeneracy import DegeneracyExplorer
from workbench_widgets.explorer import Explorer
from workbench_widgets.signatures import SignatureExplorer
from workbench_widgets.spectrum import SpectrumExplorer
from workbench_widgets.workbench import Workbench

__all__ = [
    "AtlasExplorer",
    "Call",
    "CheckpointBrowser",
    "ConnectivityExplorer",
    "DegeneracyExplorer",
    "Explorer",
    "SignatureExplorer",
    "SpectrumExplorer",
    "Workbench",
]

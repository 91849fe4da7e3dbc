"""The base of explorers that write files of what their views made: a run, or a file, but not both at once."""

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.layered_explorer import LayeredExplorer
from workbench_widgets.save_panel import SavePanel
from workbench_widgets.shared import FieldStyle


class SavingExplorer(LayeredExplorer):
    """An explorer some of whose views' panels write files."""

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """All controls; what begins a run or a file waits for the other."""
        controls = super().make_inputs(style)
        self.observe(lambda _: self._one_at_a_time(), "running")
        for panel in self._save_panels():
            panel.lock = self._lock
            panel.observe(lambda _: self._one_at_a_time(), "busy")
        return controls

    def start(self) -> None:
        """Starts a run beside the kernel's main thread.

        Raises:
            wb.ArgumentError: a run is under way, a file is being written, there is nothing to run on, or the explorer
                is closed.
        """
        self._must_be_open()
        if any(panel.busy for panel in self._save_panels()):
            raise wb.ArgumentError("a file is being written: stop that, or wait until it is there.")
        super().start()

    def _save_panels(self) -> list[SavePanel]:
        return [panel for panel in self.panels.values() if isinstance(panel, SavePanel)]

    def _one_at_a_time(self) -> None:
        """Both want the same networks: neither begins while the other is under way."""
        busy = any(panel.busy for panel in self._save_panels())
        self.controls.run.disabled = self.running or busy
        for panel in self._save_panels():
            panel.allow(not self.running and not busy)

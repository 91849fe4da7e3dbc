"""The results of a workbench: what was computed, to show again or to let go."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.shared import button, fields


@dataclass(frozen=True, eq=False, repr=False)
class Entry:
    """One result.

    Attributes:
        tab: where it was computed.
        call: what made it.
        result: what came of it.
        when: seconds since the epoch.
    """

    tab: str
    call: Call
    result: wb.Result
    when: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(self.when))} {self.result.title}"


class HistoryPanel(ipw.VBox):
    """A list of results, the newest first.

    Args:
        show: called with the one that was chosen.
        released: called when some were let go.
    """

    def __init__(self, show: Callable[[Entry], Any], released: Callable[[Sequence[Entry]], Any]) -> None:
        self.entries: list[Entry] = []
        self._released = released
        self.list = ipw.Select(
            options=[], rows=6, description="Results", tooltip="what was computed", style=fields("0")
        )
        self.show_button = button("Show", "eye", "show the result in its tab", disabled=True)
        self.release_button = button("Release", "eject", "let go of the result", disabled=True)
        self.show_button.on_click(lambda _: show(self.list.value) if self.list.value else None)
        self.release_button.on_click(lambda _: self.release([self.list.value]) if self.list.value else None)
        super().__init__([self.list, ipw.HBox([self.show_button, self.release_button])], _dom_classes=("wb-column",))

    def keep(self, entry: Entry) -> None:
        """Adds a result; one of the same call takes its place."""
        self.entries = [one for one in self.entries if one.call != entry.call or one.tab != entry.tab] + [entry]
        self._list()

    def release(self, entries: Sequence[Entry]) -> None:
        """Lets go of results."""
        self.entries = [one for one in self.entries if one not in entries]
        self._list()
        self._released(entries)

    def _list(self) -> None:
        chosen = self.list.value
        self.list.options = [(str(one), one) for one in reversed(self.entries)]
        self.list.value = chosen if chosen in self.entries else None
        self.show_button.disabled = self.release_button.disabled = not self.entries

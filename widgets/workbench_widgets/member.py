"""What an explorer is to the workbench that it stands in: models by name, turns, settings, results shown again."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call, Memory, script
from workbench_widgets.job import Job
from workbench_widgets.settings import restored, values
from workbench_widgets.shelf import Shelf
from workbench_widgets.turns import Turns


class Member:
    """The part of an explorer that a workbench, or a session, asks."""

    SOURCE: ClassVar[str]
    result: Any
    _lock: threading.RLock
    _job: Job
    _memory: Memory | None = None  # of explorers whose calls build on others
    _settings: Mapping[str, ipw.DOMWidget]
    _shown: tuple[Call, wb.Result] | None
    _say: Callable[[str], None]
    _forget: Callable[[str], None]
    call: Callable[[], Call]
    shows: Callable[[Call, Call], bool]
    figure_code: Callable[[], list[str]]
    also: Callable[[], list[Call]]

    def code(self) -> str:
        """The exact call, as Python that runs in a fresh kernel."""
        call, remark = self.call(), ""
        if self.result is not None and self.made is None:
            remark = f"the result shown was given to the explorer: {self.result.title}"
        elif self.made is not None:
            if self.shows(self.made, call):
                return self.shown_code()
            remark = "the settings have changed since the result shown: press Run"
        return script(call, remark, ())

    def shown_code(self) -> str:
        """The call that made the result shown, whatever the controls say now.

        Raises:
            wb.ArgumentError: no call made it.
        """
        if self.made is None:
            raise wb.ArgumentError("no result that a call made is shown: press Run.")
        return script(self.made, "", self.figure_code(), self.also())

    @property
    def made(self) -> Call | None:
        """The call that made the result shown; None if there is none, or it was given."""
        return self._shown[0] if self._shown and self._shown[1] is self.result else None

    def suggested(self, names: list[str]) -> dict[str, str]:
        """Label → what a field would take of a shelf's models, where it is empty."""
        return {self.SOURCE: names[0]} if names else {}

    def show(self, call: Call, result: wb.Result) -> None:
        """Shows a result again, and the call that made it."""
        with self._lock:
            self.result, self._shown = None, (call, result)
            self.result = result
            self._say(result.facts())

    def forget_result(self, result: wb.Result) -> None:
        """Lets go of a result, also where it is shown."""
        with self._lock:
            if self.result is result:
                self.result, self._shown = None, None
                self._forget("press Run")
                self._say("the result was released: press Run")

    def withdraw(self, name: str) -> None:
        """A model has left the shelf: fields that name it are emptied."""
        for control in self._settings.values():
            if hasattr(control, "withdraw"):
                control.withdraw(name)

    def settings(self) -> dict[str, Any]:
        """Label → value of every control, as JSON has it; of a model that was given, nothing."""
        return values(self._settings)

    def restore(self, settings: Mapping[str, Any]) -> list[str]:
        """Moves controls to where they were.

        Args:
            settings: as `settings` gave them, or some of them.

        Returns:
            Labels of the controls that could not be moved: those that know their values when there is a result.
        """
        with self._lock:
            return restored(self._settings, settings)

    def share(self, shelf: Shelf, turns: Turns, lock: threading.RLock, alone: threading.Lock) -> None:
        """Works beside other explorers: with models by name, one run at a time, and one user of a module at a time."""
        self._lock = lock  # one for all: each tells the others what it does
        self._job.turns = turns
        if self._memory is not None:
            self._memory.alone = alone
        for control in self._settings.values():
            if hasattr(control, "lend"):
                control.lend(shelf)

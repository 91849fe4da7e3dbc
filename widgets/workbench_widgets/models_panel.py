"""The models of a workbench: added, chosen, released, and where they are."""

import mmap
import sys
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import torch

import workbench as wb
from workbench_widgets.amounts import count_text, size_text
from workbench_widgets.shared import button, fields, line
from workbench_widgets.shelf import Shelf


class ModelsPanel(ipw.VBox):
    """A list of the models on a shelf, with a field to add one.

    Args:
        shelf: the models.
        add: called with what was typed.
        choose: called with the name of the one that was chosen.
        release: called with its name.
    """

    def __init__(
        self, shelf: Shelf, add: Callable[[str], Any], choose: Callable[[str], Any], release: Callable[[str], Any]
    ) -> None:
        self.shelf, self._choose = shelf, choose
        self.text = ipw.Text(
            placeholder="path, hf://… or a variable",
            description="Add a model",
            tooltip="the path of a file or folder, a hub id as hf://org/name, or the name of a variable",
            continuous_update=False,
            style=fields("0"),
        )
        self.list = ipw.Select(options=[], rows=6, description="Models", tooltip="look at one", style=fields("0"))
        self.facts = line()
        self.release_button = button(
            "Release", "eject", "let go of the model, and of results that rest on it", disabled=True
        )
        self.total = line()
        self.text.observe(lambda change: add(change.new) if change.new.strip() else None, "value")
        self.release_button.on_click(lambda _: release(self.list.value) if self.list.value else None)
        self._listing = False
        self.list.observe(self._chosen, "value")
        parts = [self.text, self.list, self.facts, self.release_button, self.total]
        super().__init__(parts, _dom_classes=("wb-column",))
        shelf.listen(self.show)
        self.show()

    def show(self) -> None:
        """Lists what is on the shelf now."""
        names = self.shelf.names
        self._listing = True
        chosen = self.list.value
        self.list.options = names
        self.list.value = chosen if chosen in names else None
        self._listing = False
        self.release_button.disabled = self.list.value is None
        self.describe()

    def describe(self) -> None:
        """Says what the chosen model is and where, and how much memory is in use."""
        sources = self.shelf.sources
        told = [] if self.list.value not in sources else model_facts(sources[self.list.value])
        self.facts.value = "".join(f'<div class="wb-status">{escape(line)}</div>' for line in told)
        self.total.value = f'<div class="wb-status">{escape(memory_facts(sources))}</div>'

    def _chosen(self, _: Any) -> None:
        self.release_button.disabled = self.list.value is None
        self.describe()
        if not self._listing and self.list.value is not None:
            self._choose(self.list.value)


def model_facts(source: Any) -> list[str]:
    """What a model is: its size and dtypes, and the devices that hold it."""
    infos = [info for info in wb.load(source).infos.values() if info.tied_to is None]
    dtypes = ", ".join(sorted({str(info.dtype).removeprefix("torch.") for info in infos}))
    elements = sum(info.elements for info in infos)
    lines = [f"{count_text(len(infos), 'tensor')}, {count_text(elements, 'element')}, {dtypes}"]
    held = held_bytes(source)
    where = [f"{size_text(count)} on {device}" for device, count in held.items()]
    return [*lines, f"in memory: {', '.join(where)}" if where else "on the disk; tensors are read when asked for"]


def held_bytes(source: Any) -> dict[str, int]:
    """Device → bytes of the tensors that an object holds there; nothing for a path."""
    if isinstance(source, torch.nn.Module):
        tensors = [*source.parameters(), *source.buffers()]
    elif isinstance(source, Mapping) and not isinstance(source, wb.Weights):
        tensors = [one for one in source.values() if isinstance(one, torch.Tensor)]
    else:
        tensors = []
    found: dict[str, int] = {}
    for one in {tensor.data_ptr(): tensor for tensor in tensors}.values():
        found[str(one.device)] = found.get(str(one.device), 0) + one.numel() * one.element_size()
    return found


def memory_facts(sources: Mapping[str, Any]) -> str:
    """Memory of the models, of the kernel, and of the GPU where there is one."""
    held: dict[str, int] = {}
    for source in sources.values():
        for device, count in held_bytes(source).items():
            held[device] = held.get(device, 0) + count
    parts = [f"models: {', '.join(f'{size_text(n)} on {d}' for d, n in held.items()) or 'none in memory'}"]
    if sys.platform == "linux":
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        parts.append(f"kernel: {size_text(resident * mmap.PAGESIZE)}")
    if torch.cuda.is_available():
        parts.append(f"GPU: {size_text(torch.cuda.memory_allocated())}")
    return "; ".join(parts)

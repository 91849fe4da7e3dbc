"""The field that says which results are joined."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call, Given, is_source
from workbench_widgets.history import Entry
from workbench_widgets.shared import FieldStyle

LEAST = 99  # orders of a pair: the fewest that wb.atlas takes


@dataclass(frozen=True, eq=False, repr=False)
class Item:
    """A result that can be joined.

    Attributes:
        result: what an analysis returned.
        call: what made it, or how it is called where it was given.
        label: the label that it was given; empty for the word of its kind.
        model: the model that it is of, where that is known.
        word: what its columns are called where no label is given: `spectrum`, `diff`, ….
    """

    result: Any
    call: Call | Given
    label: str
    model: str
    word: str

    def __str__(self) -> str:
        return "/".join(filter(None, [self.model, self.label or self.word]))


def items(results: Sequence[Any], model: str = "") -> list[Item]:
    """Results that were given, alone or by label, as `wb.atlas` takes them.

    Raises:
        wb.ArgumentError: one has no table by layer.
    """
    found: list[Item] = []
    for one in results:
        for label, result in one.items() if isinstance(one, dict) else [("", one)]:
            word = word_of(result)
            found.append(Item(result, Given(label or word, result), label, model, word))
    return found


def of_history(
    entries: Sequence[Entry], sources: Mapping[str, Any], known: Sequence[Item] = ()
) -> tuple[list[Item], list[str]]:
    """The results of a history that can be joined, and the kinds of those that cannot.

    Args:
        entries: of the history.
        sources: name → model.
        known: results that were found to be ones before.
    """
    found, refused = list[Item](), list[str]()
    words = {id(item.result): item.word for item in known}
    for one in entries:
        if isinstance(one.result, wb.Atlas):
            continue
        try:
            word = words.get(id(one.result)) or word_of(one.result)
        except wb.ArgumentError:
            refused.append(type(one.result).__name__)
            continue
        taken = (name for part in one.call.taken for name, source in sources.items() if is_source(part, source))
        found.append(Item(one.result, one.call, "", next(taken, ""), word))
    return found, refused


def word_of(result: Any) -> str:
    """What the columns of a result are called without a label.

    Raises:
        wb.ArgumentError: it has no table by layer.
    """
    return str(wb.atlas(result, columns=[], permutations=LEAST).frame("sources")["label"][0])


class ResultsField(ipw.SelectMultiple):
    """A list of results, of which the chosen ones are joined; none chosen stands for all.

    Args:
        given: the results.
        style: the label's style.
    """

    def __init__(self, given: Sequence[Item], style: FieldStyle) -> None:
        self.items: dict[str, Item] = {}
        super().__init__(
            options=[],
            rows=5,
            description="Results",
            tooltip="what is joined by layer; none chosen: all (Ctrl and a click, or Ctrl and Space, add one)",
            style=style,
        )
        self.offer(given)

    def offer(self, given: Sequence[Item]) -> None:
        """Lists results; those that were chosen and are still there stay chosen."""
        chosen, found = [self.items[key].result for key in self.value], dict[str, Item]()
        for item in given:
            first = key = str(item)
            number = 2
            while key in found:
                key, number = f"{first} ({number})", number + 1
            found[key] = item
        self.items = found
        self.options = [(f"{key} · {_title(item.result)}", key) for key, item in found.items()]
        self.value = tuple(key for key, item in found.items() if any(item.result is one for one in chosen))

    @property
    def filled(self) -> bool:
        """Whether there is a result."""
        return bool(self.items)

    @property
    def chosen(self) -> list[Item]:
        """The results that are joined.

        Raises:
            wb.ArgumentError: there is none.
        """
        if not self.items:
            raise wb.ArgumentError(
                "no result to join yet: compute spectra, changes or a degeneracy first, or pass results, as in "
                "wb.ui.AtlasExplorer(spectrum, diff)."
            )
        return [item for key, item in self.items.items() if not self.value or key in self.value]

    def release(self) -> None:
        """Lets go of the results."""
        self.offer([])


def _title(result: Any) -> str:
    return str(getattr(result, "title", type(result).__name__))

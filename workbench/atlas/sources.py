"""The results that an atlas is given: under which labels, of which models, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from workbench.atlas.kinds import KINDS, OTHERS, reading, what_of
from workbench.atlas.models import SAME, agreement, components, strangers
from workbench.atlas.readings import Reading
from workbench.degeneracy.ablation import Ablation
from workbench.errors import ArgumentError, nearest
from workbench.results import Result, short_source


@dataclass(frozen=True, kw_only=True)
class Source:
    """A result with the label under which its columns go.

    Attributes:
        label: the prefix of its columns.
        model: the model's label where several are pooled, else empty.
        result: what an analysis returned.
        reading: what it says by layer.
    """

    label: str
    model: str
    result: Any
    reading: Reading

    @property
    def origin(self) -> str:
        """Where it comes from, shortened."""
        meta = self.result.meta
        told = meta.get("source") or ", ".join(map(str, meta.get("sources", {}).values()))
        return short_source(str(told)) if told else ""

    @property
    def cancelled(self) -> str:
        """How far a run came that was cancelled; empty for one that was not."""
        stopped = self.result.meta.get("cancelled")
        if not stopped:
            return ""
        return "not settled" if stopped is True else f"after {stopped['done']} of {stopped['total']}"


def sources(
    results: Sequence[object], named: Mapping[str, object], models: Mapping[str, object] | None, *, across: bool
) -> list[Source]:
    """All results under their labels, model by model.

    Raises:
        ArgumentError: one has no table by layer, two have one label or are the same, or they are of different models.
    """
    if models is None:
        found = _of_model("", [*results, dict(named)], across=across)
    else:
        if results or named:
            raise ArgumentError("got results and models=: where models are pooled, every result is one of a model's.")
        if not isinstance(models, Mapping) or not models:
            raise ArgumentError("models: expected a mapping of labels to results, as in {'seed 0': [spectrum, diff]}.")
        found = []
        for model, own in models.items():
            if not isinstance(model, str) or not model:
                raise ArgumentError(f"models has the label {model!r}: expected a name.")
            several = own if isinstance(own, Sequence) and not isinstance(own, str) else [own]
            found += _of_model(model, several, across=across)
    if not found:
        raise ArgumentError("no results: expected what analyses returned, as in wb.atlas(spectrum, diff).")
    for one, other in combinations(found, 2):
        if _equal(one.result, other.result):
            raise ArgumentError(f"{_name(one)} and {_name(other)} are the same result: give it once.")
    return found


def _name(source: Source) -> str:
    return f"{source.label!r} of {source.model!r}" if source.model else repr(source.label)


def _of_model(model: str, results: Sequence[object], *, across: bool) -> list[Source]:
    found: dict[str, Source] = {}
    for label, result in _labelled(results):
        what = what_of(result)
        if what is None:
            raise ArgumentError(_refusal(result))
        own = Source(label=label or what, model=model, result=result, reading=reading(result))
        if "." in own.label or any(sign in own.label for sign in "*?["):
            raise ArgumentError(f"label {own.label!r}: a label has no '.', '*', '?' or '[', as columns are LABEL.NAME.")
        if (before := found.get(own.label)) is None:
            found[own.label] = own
        elif isinstance(result, Ablation) and isinstance(before.result, Ablation) and not label:
            found[own.label] = _merged(before, own)
        else:
            raise ArgumentError(
                f"two results are called {own.label!r}: give each a label, as in "
                f"wb.atlas({{'first': {what}, 'second': {what}}})."
            )
    if not across:
        _check_one_model(list(found.values()))
    return list(found.values())


def _labelled(results: Sequence[object]) -> Iterator[tuple[str, object]]:
    for result in results:
        if what_of(result) is None and isinstance(result, Mapping):
            for label, one in result.items():
                if not isinstance(label, str) or not label:
                    raise ArgumentError(f"label {label!r}: expected a name.")
                yield label, one
        else:
            yield "", result


def _merged(one: Source, other: Source) -> Source:
    """Ablations of different layers as one column."""
    twice = one.reading.cells.keys() & other.reading.cells.keys()
    if twice:
        raise ArgumentError(f"two ablations of {sorted(twice)[0]!r}: give each a label, as in {{'nodes': ablation}}.")
    cells = {**one.reading.cells, **other.reading.cells}
    return replace(one, reading=replace(one.reading, cells=cells))


def _check_one_model(found: Sequence[Source]) -> None:
    if apart := strangers([one.reading.identity for one in found]):
        one, other = (found[place] for place in apart[0])
        raise ArgumentError(
            f"{one.label!r} is of {one.origin} and {other.label!r} of {other.origin}, which are different models: give "
            "each its results with models={'one': […], 'other': […]}, or join layers by their ids alone with "
            "across=True."
        )


def _refusal(result: object) -> str:
    known = ", ".join(sorted({kind.__name__ for kind in (*KINDS, *OTHERS)}))
    if isinstance(result, Result):
        return f"a result of the kind {type(result).__name__} has no table by layer; those that have: {known}."
    hint = nearest(type(result).__name__, [kind.__name__ for kind in KINDS])
    return f"got {type(result).__name__}: expected results of analyses, or mappings of labels to them ({known}).{hint}"


def _equal(one: Any, other: Any) -> bool:
    """Whether two results are one: the same object, or one of them reopened."""
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, Result):
        return False
    return (
        one.meta.get("source") == other.meta.get("source")
        and one.meta.get("parameters") == other.meta.get("parameters")
        and repr(one.tables) == repr(other.tables)
    )


def agreements(found: Sequence[Source]) -> list[str]:
    """For each source how it agrees with the first of its model; what a third connects are the same tensors."""
    told = []
    for source in found:
        own = [one for one in found if one.model == source.model]
        identities = [one.reading.identity for one in own]
        place, numbers = own.index(source), components(identities)
        if place == 0:
            told.append("the first")
        else:
            told.append(SAME if numbers[place] == numbers[0] else agreement(identities[0], identities[place]))
    return told


def families(found: Sequence[Source]) -> dict[str, str]:
    """Model → the first model of its architecture: of the same names and shapes, or with the same layer ids."""
    headers: dict[str, set[str]] = {}
    layers: dict[str, set[str]] = {}
    for source in found:
        headers.setdefault(source.model, set()).add(source.reading.identity.header)
        layers.setdefault(source.model, set()).update(source.reading.cells)
    family = {model: model for model in headers}
    for one, other in combinations(headers, 2):
        if (headers[one] & headers[other]) - {""} or layers[one] == layers[other]:
            old, new = family[other], family[one]
            family = {model: new if first == old else first for model, first in family.items()}
    return family

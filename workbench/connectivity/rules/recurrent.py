"""Recurrent layers and cells, whose gates have one set of units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.connectivity.axes import Axis, concatenation, cut, unify, view
from workbench.connectivity.rules.call import Axes, TracedCall, freeze_order, rule

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _cell(below: Axis, weights: Sequence[Axes], gates: int) -> tuple[Axis, Axis]:
    """Units and what the cell gives, which are two where its outputs are projected."""
    read, carried, *more = weights
    projection = more.pop() if more and len(more[-1]) == 2 else None
    given = carried[1]
    unit = cut(carried[0], [carried[0].size // gates] * gates)[0]
    unify(below, read[1])
    for rows in (read[0], carried[0], *(bias[0] for bias in more)):
        for piece in cut(rows, [unit.size] * gates):
            unify(piece, unit)
    if projection is None:
        unify(given, unit)
    else:
        unify(projection[0], given)
        unify(projection[1], unit)
    return unit, given


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(call: TracedCall) -> tuple[Axes, ...]:
    """Layers of one or two directions; of a packed sequence nothing is known."""
    inputs, weights = call["input"], list(call["params"])
    states = call["hx"] if call.name == "lstm" else [call["hx"]]
    cells = int(call["num_layers"]) * (1 + bool(call["bidirectional"]))
    each = len(weights) // cells
    freeze_order(call, inputs, [1 if call["batch_first"] else 0], "steps in time")
    below, units, given = inputs[-1], list[Axis](), list[Axis]()
    for layer in range(int(call["num_layers"])):
        for _ in range(1 + bool(call["bidirectional"])):
            start = len(units) * each
            unit, out = _cell(below, weights[start : start + each], GATES[call.name])
            units.append(unit)
            given.append(out)
        below = concatenation(given[layer * len(given) // (layer + 1) :])
    last = [_stacked(state, found) for state, found in zip(states, (given, units), strict=False)]
    return ([*inputs[:-1], below], *last)


def _stacked(state: Axes, units: Sequence[Axis]) -> Axes:
    """States [layers and directions, samples, units], the units of each layer apart."""
    rows, inner = view([concatenation(units)], [len(units), units[0].size])
    unify(state[0], rows)
    unify(state[-1], inner)
    return [rows, *state[1:-1], inner]


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _one_step(call: TracedCall) -> Any:
    name = call.name.removesuffix("_cell")
    states = call["hx"] if name == "lstm" else [call["hx"]]
    weights = [call[key] for key in ("w_ih", "w_hh", "b_ih", "b_hh") if call[key] is not None]
    unit, _ = _cell(call["input"][-1], weights, GATES[name])
    for state in states:
        unify(state[-1], unit)
    found = tuple([*state[:-1], unit] for state in states)
    return found if name == "lstm" else found[0]

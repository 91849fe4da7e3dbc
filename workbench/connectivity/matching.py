"""What a matching of networks is: permutations, and what they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from workbench.connectivity.groups import GROUP_COLUMNS
from workbench.connectivity.permutations import Permutations
from workbench.connectivity.structure import AXIS_COLUMNS, Structure
from workbench.errors import ArgumentError
from workbench.results import Column, Result
from workbench.weights import ModelLike, Weights

MODEL = Column("number of the network, as they were given; 0 is the one that stays", int, "", low=0)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Matching(Result):
    """Permutations that bring networks near each other, with their progress and effect.

    Tables: `groups`, a row per network and group; `sweeps`, how the objective rose; `layers`, distances per parameter
    before and after; `alignment`, overlap of singular vectors per layer and threshold γ; `axes`, what the permutations
    move.

    Attributes:
        orders: `model/group` → indices; `permutations` has them as one object.
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "groups": {
            "model": MODEL,
            **{name: GROUP_COLUMNS[name] for name in ("group", "size", "within", "orders", "parameters", "frozen")},
            "moved": Column("units that change places", int, "units", low=0),
            "objective": Column("Σ⟨A, π(B)⟩ over the parameters that have the group; before: `objective_before`"),
            "objective_before": Column("the same with every unit in its place"),
        },
        "sweeps": {
            "model": MODEL,
            "start": Column("0 is the settled start, further ones are random", int, "", low=0),
            "sweep": Column(
                "-1 before anything, 0 after the settled start, then passes over the groups", int, "", low=-1
            ),
            "objective": Column("Σ⟨A, π(B)⟩ over all parameters"),
            "distance": Column("‖A − π(B)‖ over all parameters", low=0),
            "changed": Column("groups that changed in this sweep", int, "groups", low=0),
            "seconds": Column("wall time since this start began", float, "s", low=0),
        },
        "layers": {
            "model": MODEL,
            "layer": Column("the tensor's name without `.weight`", str, ""),
            "tensor": Column("the parameter", str, ""),
            "elements": Column("its elements", int, "elements", low=0),
            "norm_a": Column("‖A‖ of it", low=0),
            "norm_b": Column("‖B‖ of it", low=0),
            "distance_before": Column("‖A − B‖ of it", low=0),
            "distance_after": Column("‖A − π(B)‖ of it", low=0),
            "reduction": Column("1 − ‖A − π(B)‖/‖A − B‖; NaN where A = B", high=1),
            "objective": Column("⟨A, π(B)⟩ of it"),
            "objective_before": Column("⟨A, B⟩ of it"),
        },
        "alignment": {
            "model": MODEL,
            "layer": Column("layer id, as in `wb.layers`", str, ""),
            "depth": Column("number of matrix layers before it", int, "layers", low=0),
            "gamma": Column("singular vectors with σ ≥ γ·σmax count", low=0, high=1),
            "vectors": Column("√(n_A·n_B) of them", float, "vectors", low=0),
            "overlap_before": Column("⟨U_A V_Aᵀ, U_B V_Bᵀ⟩ over them, without permutation"),
            "overlap_after": Column("⟨U_A V_Aᵀ, U_πB V_πBᵀ⟩ over them"),
        },
        "axes": AXIS_COLUMNS,
    }
    NEXT: ClassVar[str] = ".apply(b), wb.barrier(evaluator, a, matching.apply(b), batch_norm=…), .frame('layers')"

    orders: Mapping[str, Tensor]

    @cached_property
    def structure(self) -> Structure:
        """Groups and axes as functions take them."""
        table = self.tables["groups"]
        first = [row for row, model in enumerate(table["model"]) if model == self.models[0]]
        groups = {name: [cells[row] for row in first] for name, cells in table.items()}
        return Structure.of(groups, self.tables["axes"])

    @property
    def models(self) -> list[int]:
        """The numbers of the networks that are permuted."""
        return sorted(set(self.tables["layers"]["model"]))

    @property
    def permutations(self) -> Permutations:
        """The permutations of the one network that is permuted.

        Raises:
            ArgumentError: there are several; take `permutations_of`.
        """
        if len(self.models) != 1:
            raise ArgumentError(f"networks {self.models} are permuted: take permutations_of(model).")
        return self.permutations_of(self.models[0])

    def permutations_of(self, model: int) -> Permutations:
        """The permutations of one of the networks; those of number 0 leave everything in place.

        Raises:
            ArgumentError: there is no network of this number.
        """
        if model not in (0, *self.models):
            raise ArgumentError(f"model={model!r}: the permuted networks have the numbers {self.models}.")
        own = {name.partition("/")[2]: order for name, order in self.orders.items() if name.startswith(f"{model}/")}
        return Permutations(own if model else self.structure.identity(), self.structure.within)

    def apply(self, weights: ModelLike, model: int | None = None) -> Weights:
        """A network with its units in the order that was found for it.

        Args:
            weights: the network (or another with its units in the same order, such as an earlier checkpoint of it).
            model: its number, where several were matched.

        Raises:
            ArgumentError: the weights are of another architecture, or the number is missing or unknown.
        """
        found = self.permutations if model is None else self.permutations_of(model)
        return self.structure.applied(weights, found)

    @property
    def objective(self) -> float:
        """Σ⟨A, π(B)⟩ over all parameters, summed over the permuted networks."""
        return sum(self.tables["layers"]["objective"])

    def reduction(self, model: int | None = None) -> float:
        """1 − ‖A − π(B)‖/‖A − B‖ over all parameters; 0 where A = B.

        Raises:
            ArgumentError: no permuted network has this number.
        """
        self._check_model(model)
        table = self.tables["layers"]
        rows = [row for row, owner in enumerate(table["model"]) if model is None or owner == model]
        before, after = (sum(table[name][row] ** 2 for row in rows) for name in ("distance_before", "distance_after"))
        return 1 - (after / before) ** 0.5 if before else 0.0

    def alignment(self, gamma: float, *, before: bool = False, model: int | None = None) -> float:
        """R(γ) = Σ overlap / Σ √(n_A·n_B) over the layers; NaN where none was computed for this γ.

        Args:
            gamma: one of those that were computed.
            before: without the permutation.
            model: one network only.

        Raises:
            ArgumentError: no permuted network has this number.
        """
        self._check_model(model)
        table = self.tables["alignment"]
        rows = [
            row
            for row, (owner, value) in enumerate(zip(table["model"], table["gamma"], strict=True))
            if value == gamma and (model is None or owner == model)
        ]
        count = sum(table["vectors"][row] for row in rows)
        column = table["overlap_before" if before else "overlap_after"]
        return sum(column[row] for row in rows) / count if count else float("nan")

    def _check_model(self, model: int | None) -> None:
        if model is not None and model not in self.models:
            raise ArgumentError(f"model={model!r}: the permuted networks have the numbers {self.models}.")

    @property
    def verified(self) -> bool:
        """Whether the permuted network was seen to be the same function: here, or for the groups."""
        return bool(self.meta["verified"])

    def facts(self) -> str:
        """How far the networks came near each other, and whether the function stayed."""
        moved = sum(self.tables["groups"]["moved"])
        stopped = "; CANCELLED, not settled" if self.meta.get("cancelled") else ""
        return (
            f"{self.title}: ‖A − π(B)‖ is {self.reduction():.1%} below ‖A − B‖, {moved:,} units moved; "
            f"{self.meta['proof']}{stopped}"
        )

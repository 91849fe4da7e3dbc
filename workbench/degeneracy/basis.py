"""What an interaction basis is: coordinates of each layer, and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from workbench.degeneracy.datapoints import datapoints
from workbench.errors import ArgumentError, LayerNotFoundError, nearest
from workbench.results import LAYER_COLUMNS, Column, Result
from workbench.runtime.borrowing import name_of
from workbench.runtime.chain import Chain, resolved_dtype
from workbench.runtime.cut_test import layer_chain
from workbench.weights.tensors import fingerprint_of

if TYPE_CHECKING:
    import pandas

PREDICTING = 1e-3  # share of the largest Λ above which a direction is predicted to be needed


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InteractionBasis(Result):
    """Coordinates f̂ = (f−μ)·C of each layer's activations f, so that f ≈ μ + f̂·C⁺.

    Tables: `directions`, a row per layer and direction; `layers`, a row per layer. Direction 0 is the constant, whose
    coordinate is 1; direction j is column j−1 of C.

    Attributes:
        means: layer → μ, (width,).
        bases: layer → C, (width, directions).
        inverses: layer → C⁺, (directions, width).
    """

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "directions": {
            "layer": LAYER_COLUMNS["layer"],
            "direction": Column("number of the direction; 0 is the constant", int, "", low=0),
            "weight": Column("Λ, the direction's weight: how much it moves the next layer; NaN of 0", float, "1"),
        },
        "layers": {
            **LAYER_COLUMNS,
            "width": Column("number of features", int, "1", low=1),
            "positions": Column("positions of a sample: pixels, tokens, or 1", int, "1", low=1),
            "samples": Column("datapoints: samples × positions, without padding", int, "1", low=0),
            "rank": Column("directions of the activations above the noise floor", int, "1", low=0),
            "nodes": Column("directions of the basis, with the constant", int, "1", low=1),
            "predicted_nodes": Column("1 + number of Λ > 1e-3·Λmax: nodes that are likely needed", int, "1", low=1),
            "noise_floor": Column("eigenvalue of the covariance below which all is rounding", float, "1", low=0),
            "estimator": Column("how M′ was found: closed form, exact, Hutchinson, or none", str, ""),
            "error": Column("relative standard error of M′ in the Frobenius norm, 0 unless drawn", float, "1", low=0),
        },
    }
    NEXT: ClassVar[str] = '.frame("layers"), .bases, wb.interaction_graph(module, data, basis), wb.figure(basis)'

    means: Mapping[str, Tensor]
    bases: Mapping[str, Tensor]
    inverses: Mapping[str, Tensor]

    @property
    def layers(self) -> list[str]:
        """Ids of the layers in the order in which they run; the last is the module's output."""
        return list(self.tables["layers"]["layer"])

    def nodes(self, layer: str) -> int:
        """Number of a layer's directions, with the constant.

        Raises:
            LayerNotFoundError: it has none.
        """
        return 1 + self._of(self.bases, layer).shape[1]

    def weights(self, layer: str) -> Float[Tensor, " directions"]:
        """Λ of a layer's directions 1, 2, …, falling (by neuron for `neuron`)."""
        self._of(self.bases, layer)
        table = self.tables["directions"]
        rows = zip(table["layer"], table["direction"], table["weight"], strict=True)
        return torch.tensor(
            [weight for one, direction, weight in rows if one == layer and direction], dtype=torch.float64
        )

    def predicted_nodes(self, layer: str, threshold: float = PREDICTING) -> int:
        """1 + #{Λ > threshold·Λmax}: how many nodes an ablation will need, without running one."""
        return predicted(self.weights(layer), threshold)

    def coordinates(self, layer: str, rows: Float[Tensor, "samples width"]) -> Float[Tensor, "samples nodes"]:
        """f̂ of activations, with the constant's 1 in front."""
        basis = self._of(self.bases, layer)
        inner = (rows.to(basis) - self.means[layer]) @ basis
        return torch.cat([torch.ones(len(inner), 1, dtype=inner.dtype), inner], 1)

    def restored(self, layer: str, coordinates: Float[Tensor, "samples nodes"]) -> Float[Tensor, "samples width"]:
        """Activations μ·f̂₀ + Σ_j f̂_j·C⁺_j of coordinates."""
        own = self._of(self.inverses, layer)
        return coordinates.to(own) @ torch.cat([self.means[layer][None], own])

    def datapoints(
        self, module: nn.Module, data: Iterable[Any], layer: str, direction: int, *, count: int = 10
    ) -> pandas.DataFrame:
        """The datapoints at both ends of a direction: batch, sample, position and coordinate, the largest first.

        Args:
            module: the module of this basis.
            data: batches; these or others.
            layer: a layer of the basis.
            direction: its number; 0 is the constant and tells nothing.
            count: datapoints from each end.

        Raises:
            LayerNotFoundError: no such layer.
            ArgumentError: no such direction, a count below 1, a module whose layers are others, or activations that are
                NaN or infinite.
        """
        import pandas

        nodes = self.nodes(layer)
        if not isinstance(direction, int) or isinstance(direction, bool) or not 1 <= direction < nodes:
            known = f"expected 1 to {nodes - 1}; {layer!r} has no other" if nodes > 1 else f"{layer!r} has none"
            raise ArgumentError(f"direction={direction!r}: {known}, and 0 is the constant.")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ArgumentError(f"count={count!r}: expected how many datapoints of each end, at least 1.")
        column = self.bases[layer][:, direction - 1]
        return pandas.DataFrame(datapoints(self.chain(module, data), layer, self.means[layer], column, count))

    @property
    def fingerprint(self) -> str:
        """What tells these directions from all others."""
        parts = {"mean": self.means, "basis": self.bases}
        return fingerprint_of({f"{part} {layer}": of[layer] for part, of in parts.items() for layer in of})

    def chain(self, module: nn.Module, data: Iterable[Any]) -> Chain:
        """The module over data, seen at the layers of this basis.

        Raises:
            ArgumentError: the module's layers are others.
        """
        asked = self.meta["parameters"]
        chain = layer_chain(
            module,
            data,
            self.layers,
            features=asked["features"],
            device=asked["device"],
            dtype=resolved_dtype(asked["dtype"]),
        )
        widths = dict(zip(self.layers, self.tables["layers"]["width"], strict=True))
        for cut in chain.cuts:
            if widths.get(cut.layer) != cut.width:
                raise ArgumentError(
                    f"{name_of(module)}'s {cut.layer!r} has {cut.width} features and the basis "
                    f"{widths.get(cut.layer, 'none')} there: pass the module that the basis is of."
                )
        return chain

    def _of(self, mapping: Mapping[str, Tensor], layer: str) -> Tensor:
        if layer not in mapping:
            raise LayerNotFoundError(f"the basis has no layer {layer!r}.{nearest(layer, mapping)}")
        return mapping[layer]

    def facts(self) -> str:
        """Kind, layers and their nodes, and whether the run was stopped."""
        table = self.tables["layers"]
        nodes = ", ".join(f"{layer} {n}" for layer, n in zip(table["layer"], table["nodes"], strict=True))
        told = f"nodes: {nodes}" if nodes else "no layer"
        return f"{self.title}: {self.meta['parameters']['kind']} basis; {told}{self.stopped()}"


def predicted(weights: Tensor, threshold: float) -> int:
    """1 + #{Λ > threshold·Λmax}."""
    return 1 + int((weights > threshold * weights.max()).sum()) if len(weights) else 1

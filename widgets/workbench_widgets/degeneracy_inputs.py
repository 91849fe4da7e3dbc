"""The inputs that the views of `wb.ui.DegeneracyExplorer` share, and the calls that they stand for."""

from collections.abc import Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import choices, one_of, whole
from workbench_widgets.call import Call, Part
from workbench_widgets.evaluation import Network
from workbench_widgets.layered_view import LayerInputs
from workbench_widgets.shared import FieldStyle

KINDS = choices(wb.interaction_basis, "kind")
ESTIMATORS = choices(wb.interaction_basis, "estimator")
FORMULAS = choices(wb.interaction_graph, "edges")
NORMS = choices(wb.interaction_modules, "norm")
ANY_LAYER = "the first"
MOST_NULLS = 1000


class DegeneracyInputs(LayerInputs):
    """The controls that several views share.

    Args:
        style: of the labels.
        subject: what is looked at.
        tokens: names of token ids: a mapping or sequence, a function, or a tokenizer.
        layers: names or globs; None for all that cut the module.
        kind: of the basis.
        estimator: of M′.
        edges: formula of the graph's edges.
        norm: of the edges' weights for modules.
        nulls: graphs to compare the modules with.

    Raises:
        wb.ArgumentError: a value that its control does not offer.
    """

    def __init__(
        self,
        style: FieldStyle,
        *,
        subject: Network,
        tokens: Any,
        layers: str | Sequence[str] | None,
        kind: str,
        estimator: str,
        edges: str,
        norm: str,
        nulls: int,
    ) -> None:
        for name, value, known in (
            ("kind", kind, KINDS),
            ("estimator", estimator, ESTIMATORS),
            ("edges", edges, FORMULAS),
            ("norm", norm, NORMS),
        ):
            one_of(name, value, known)
        whole("nulls", nulls, 0, MOST_NULLS)
        asked = [layers] if isinstance(layers, str) else list(layers or ())
        if bad := next((one for one in asked if not isinstance(one, str) or "," in one), None):
            raise wb.ArgumentError(f"layers has {bad!r}: expected names or globs without commas.")
        self.subject, self.tokens = subject, tokens
        self.layers = ipw.Text(
            ", ".join(asked),
            description="Layers",
            placeholder="all that everything passes",
            tooltip="names or globs, comma-separated; each must determine the next",
            continuous_update=False,
            style=style,
        )
        self.kind = ipw.Dropdown(
            options=KINDS,
            value=kind,
            description="Basis",
            tooltip="local: by gradients to the next layer; pca: by variance; neuron: the units as they are",
            style=style,
        )
        self.estimator = ipw.Dropdown(
            options=ESTIMATORS,
            value=estimator,
            description="Gradients",
            tooltip="how their Gram matrix M′ is found; Hutchinson is quick and tells its error",
            style=style,
        )
        self.edges = ipw.Dropdown(
            options=FORMULAS, value=edges, description="Edges", tooltip="their formula", style=style
        )
        self.norm = ipw.Dropdown(
            options=NORMS, value=norm, description="Weights", tooltip="of edges, where modules are sought", style=style
        )
        self.nulls = ipw.BoundedIntText(
            nulls, 0, MOST_NULLS, description="Null graphs", tooltip="shuffled graphs to compare Q with", style=style
        )
        self.layer = ipw.Dropdown(
            options=[(ANY_LAYER, None)],
            index=0,
            description="Layer",
            tooltip="which the figures show",
            style=style,
        )
        self.names = ipw.Text(
            "",
            description="Names",
            placeholder="0: carry, 1: parity",
            tooltip="of modules, by their numbers",
            continuous_update=False,
            style=style,
        )

    @property
    def basis_widgets(self) -> list[ipw.DOMWidget]:
        """The controls of the basis."""
        return [self.layers, self.kind, self.estimator]

    def audit(self) -> Call:
        """`wb.degeneracy`."""
        return Call(wb.degeneracy, self.subject.given(), self._layers())

    def basis(self) -> Call:
        """`wb.interaction_basis`."""
        keywords = self._layers()
        for name, control, default in (("kind", self.kind, "local"), ("estimator", self.estimator, "auto")):
            keywords |= {} if control.value == default else {name: control.value}
        return Call(wb.interaction_basis, self.subject.given(), keywords, "basis")

    def graph(self) -> Call:
        """`wb.interaction_graph` on the basis."""
        keywords = {} if self.edges.value == "squared" else {"edges": self.edges.value}
        return Call(wb.interaction_graph, (*self.subject.given(), self.basis()), keywords, "graph")

    def modules(self, graph: Call | None = None) -> Call:
        """`wb.interaction_modules` of the graph."""
        keywords: dict[str, Any] = {} if self.norm.value == "log" else {"norm": self.norm.value}
        keywords |= {} if self.nulls.value == 20 else {"nulls": self.nulls.value}
        return Call(wb.interaction_modules, (graph or self.graph(),), keywords, "modules")

    def layer_argument(self) -> str | Part:
        """The chosen layer, or the first of the basis, whichever that will be."""
        first = Part(self.basis(), ".layers[0]", lambda basis: basis.layers[0])
        return self.layer.value if self.layer.value is not None else first

    def module_names(self) -> dict[int, str]:
        """Names of modules by number.

        Raises:
            wb.ArgumentError: something else was typed.
        """
        found: dict[int, str] = {}
        for part in filter(None, (one.strip() for one in self.names.value.split(","))):
            number, _, name = part.partition(":")
            if not number.strip().isdecimal() or not name.strip():
                raise wb.ArgumentError(f"names has {part!r}: expected a module's number and its name, as in 0: carry.")
            found[int(number)] = name.strip()
        return found

    def release(self) -> None:
        """Lets go of the module, the data and the evaluator."""
        self.subject, self.tokens = Network(), None

    def _layers(self) -> dict[str, Any]:
        names = [name.strip() for name in self.layers.value.split(",") if name.strip()]
        return {"layers": names} if names else {}

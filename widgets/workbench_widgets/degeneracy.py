"""`wb.ui.DegeneracyExplorer`: what of a network does nothing, and how little of it is needed."""

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.ablation_view import AblationView
from workbench_widgets.audit_view import AuditView
from workbench_widgets.basis_view import BasisView
from workbench_widgets.call import Call
from workbench_widgets.checkpoint import CheckpointField
from workbench_widgets.datapoints_view import DatapointsView
from workbench_widgets.degeneracy_inputs import DegeneracyInputs
from workbench_widgets.evaluation import Network
from workbench_widgets.interaction_graph_view import InteractionGraphView
from workbench_widgets.layered_explorer import LayeredExplorer
from workbench_widgets.modules_view import ModulesView
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import Theme
from workbench_widgets.view import View


class DegeneracyExplorer(LayeredExplorer):
    """A network over data: spectra, interaction bases, their graph and its modules, ablations, and datapoints.

    Each view is a call: `wb.degeneracy`, `wb.interaction_basis`, `wb.interaction_graph`, `wb.interaction_modules`,
    `wb.ablation`, and `wb.interaction_basis` with `basis.datapoints`. What a view needs of another is computed once and
    remembered. As the sliders of the graph move, `wb.ablated` tells the loss.

    Args:
        module: the network with its weights; lent to each run, and as before afterwards.
        data: a re-iterable of batches, in the same order each time.
        evaluator: of the module, made by `wb.evaluator` with the task's own loss; None to make one of `loss`.
        loss: as for `wb.evaluator`.
        layers: names or globs; None for all layers through which everything passes.
        kind: of the basis: `local`, `integrated`, `pca`, `gradient-flow` or `neuron`.
        estimator: of the gradients' Gram matrix: `auto`, `closed form`, `exact` or `Hutchinson`.
        edges: formula of the graph's edges: `squared`, `functional` or `stochastic`.
        norm: of the edges' weights where modules are sought: `log`, `id`, `sqrt`, `sum` or `max`.
        nulls: shuffled graphs that the modules are compared with.
        threshold: share of the largest eigenvalue above which a rank counts on the screen.
        ablate: `nodes` or `edges`.
        schedule: of the ablation: `exponential`, `linear` or `bisect`.
        count: datapoints of each end of a direction.
        tokens: names of token ids: a mapping or sequence, a function, or a tokenizer.
        view: `spectra`, `basis`, `graph`, `modules`, `ablation` or `datapoints`.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [3.0, 1.0]])
        >>> explorer = wb.ui.DegeneracyExplorer(net, [(x, torch.tensor([0, 1, 0]))])
        >>> explorer.run().frame()["layer"].tolist()
        ['1', '2']
    """

    TITLE: ClassVar[str] = "Click a row or a point to select its layer"
    SOURCE: ClassVar[str] = "Module"
    ASKED: ClassVar[str] = "the module"
    NOTHING: ClassVar[str] = "no module yet: pass module and data, or evaluator=wb.evaluator(module, data, loss)"
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (
        wb.Degeneracy,
        wb.InteractionBasis,
        wb.InteractionGraph,
        wb.InteractionModules,
        wb.Ablation,
    )
    VIEWS: ClassVar[tuple[type[View], ...]] = (
        AuditView,
        BasisView,
        InteractionGraphView,
        ModulesView,
        AblationView,
        DatapointsView,
    )

    def __init__(
        self,
        module: Any = None,
        data: Any = None,
        evaluator: Any = None,
        *,
        loss: Any = "cross_entropy",
        layers: str | Sequence[str] | None = None,
        kind: str = "local",
        estimator: str = "auto",
        edges: str = "squared",
        norm: str = "log",
        nulls: int = 20,
        threshold: float = 1e-9,
        ablate: str = "nodes",
        schedule: str = "exponential",
        count: int = 5,
        tokens: Any = None,
        view: str = AuditView.NAME,
        theme: Theme = "auto",
    ) -> None:
        subject = Network(evaluator, module, data, loss)
        self._shared = {
            "subject": subject,
            "tokens": tokens,
            "layers": layers,
            "kind": kind,
            "estimator": estimator,
            "edges": edges,
            "norm": norm,
            "nulls": nulls,
        }
        initial = {"threshold": threshold, "ablate": ablate, "schedule": schedule, "count": count}
        super().__init__(subject.network, view=view, initial=initial, theme=theme)

    def make_source(self, source: Any, style: FieldStyle) -> CheckpointField:
        """The module that was given; another one is another explorer."""
        field = CheckpointField(source, self.SOURCE, style, "none: pass module and data", "the network that was given")
        field.disabled = True
        return field

    def make_shared(self, style: FieldStyle) -> DegeneracyInputs:
        """Layers, basis, graph, and the layer that is shown."""
        found = DegeneracyInputs(style, **self._shared)
        del self._shared
        return found

    def shared(self) -> list[ipw.DOMWidget]:
        """All controls that several views have."""
        inputs = self.inputs
        return [*inputs.basis_widgets, inputs.edges, inputs.norm, inputs.nulls, inputs.layer, inputs.names]

    def looks(self) -> list[ipw.DOMWidget]:
        """The names of modules: nothing is computed anew."""
        return [self.inputs.names]

    def suggested(self, names: list[str]) -> dict[str, str]:
        """Nothing: the module was given."""
        return {}

    def sources(self) -> list[ipw.ValueWidget]:
        """None to choose."""
        return []

    def view_of(self, call: Call) -> View:
        """All views compute alike."""
        return self.views[AuditView.NAME]

    def _picked(self, name: str) -> None:
        """A layer was clicked, or a direction of one, as in fc1[3]."""
        layer, _, rest = name.partition("[")

        def pick() -> None:
            datapoints = self.views[DatapointsView.NAME]
            self.choose((layer,))
            if self.view.value == DatapointsView.NAME and rest[:-1].isdecimal() and int(rest[:-1]):
                datapoints.direction.value = int(rest[:-1])

        self._attempt(pick)

"""`wb.ui.ConnectivityExplorer`: two checkpoints, what permutes, how near they come, and the loss between them."""

from collections.abc import Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.barrier_view import BarrierView
from workbench_widgets.call import Call
from workbench_widgets.connectivity_inputs import ConnectivityInputs
from workbench_widgets.evaluation import Network
from workbench_widgets.groups_view import GroupsView
from workbench_widgets.matching_view import AlignmentView, MatchingView
from workbench_widgets.path_view import PathView
from workbench_widgets.shared import FieldStyle
from workbench_widgets.style import Theme
from workbench_widgets.surface_view import SurfaceView
from workbench_widgets.view import View
from workbench_widgets.view_explorer import ViewExplorer


class ConnectivityExplorer(ViewExplorer):
    """Two checkpoints of one architecture: permutation groups, matching, barriers, a walk between them, a surface.

    Each view is a call: `wb.permutation_groups`, `wb.match`, `wb.barrier`, `wb.surface`. What a view needs of another
    is computed once and remembered. Without a module the groups come from a template, and nothing is evaluated.

    Args:
        a: a path, or a model: anything `wb.load` takes. It stays as it is.
        b: the checkpoint whose units are permuted.
        evaluator: of the module that both are checkpoints of, made by `wb.evaluator`.
        others: further checkpoints, all matched together.
        module: with `data` and `loss` in place of an evaluator.
        data: batches, as for `wb.evaluator`.
        loss: as for `wb.evaluator`.
        example_inputs: with a `module` and no data, what it takes: enough for groups and matching.
        view: `groups`, `matching`, `alignment`, `barrier`, `path` or `surface`.
        method: `weights`, `activations` or `correlation`.
        restarts: further starts of weight matching.
        seed: of random starts and directions.
        gammas: thresholds γ of the alignment.
        batch_norm: `reset` or `interpolate`; needed for losses of a module with batch norm, there or on the screen.
        points: of the lines.
        resolution: of the surface, along each side.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> shuffled = {"0.weight": net[0].weight[[2, 0, 1]], "0.bias": net[0].bias[[2, 0, 1]],
        ...             "2.weight": net[2].weight[:, [2, 0, 1]], "2.bias": net[2].bias}
        >>> explorer = wb.ui.ConnectivityExplorer(net, shuffled, module=net, example_inputs=torch.zeros(1, 2))
        >>> explorer.view.value = "matching"
        >>> explorer.run().reduction()
        1.0
    """

    SOURCE: ClassVar[str] = "Checkpoint A"
    ASKED: ClassVar[str] = "the checkpoints"
    VIEWS: ClassVar[tuple[type[View], ...]] = (
        GroupsView,
        MatchingView,
        AlignmentView,
        BarrierView,
        PathView,
        SurfaceView,
    )
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.PermutationGroups, wb.Matching, wb.Barrier, wb.Surface)

    def __init__(
        self,
        a: Any = None,
        b: Any = None,
        evaluator: Any = None,
        *,
        others: Any = (),
        module: Any = None,
        data: Any = None,
        loss: Any = "cross_entropy",
        example_inputs: Any = None,
        view: str = GroupsView.NAME,
        method: str = "weights",
        restarts: int = 0,
        seed: int = 0,
        gammas: Sequence[float] = (0.0, 0.3),
        batch_norm: str | None = None,
        points: int = 25,
        resolution: int = 21,
        theme: Theme = "auto",
    ) -> None:
        network = Network(evaluator, module, data, loss, example_inputs)
        self._shared = {
            "b": b,
            "others": others,
            "network": network,
            "method": method,
            "restarts": restarts,
            "seed": seed,
            "gammas": gammas,
            "batch_norm": batch_norm,
            "points": points,
        }
        super().__init__(a, view=view, initial={"resolution": resolution}, theme=theme)

    def make_shared(self, style: FieldStyle) -> ConnectivityInputs:
        """The checkpoints, and how they are matched."""
        found = ConnectivityInputs(style, first=lambda: self.source.model, **self._shared)
        del self._shared
        return found

    def make_inputs(self, style: FieldStyle) -> list[ipw.DOMWidget]:
        """All controls; the loss follows the slider."""
        controls = super().make_inputs(style)
        self.views[PathView.NAME].t.observe(self._guarded(self._moved), "value")
        return controls

    def always(self) -> list[ipw.DOMWidget]:
        """The checkpoints."""
        return [self.inputs.b, self.inputs.others]

    def shared(self) -> list[ipw.DOMWidget]:
        """How they are matched, and the line between two."""
        return [*self.inputs.line_widgets, self.inputs.points, self.inputs.gammas]

    def sources(self) -> list[ipw.ValueWidget]:
        """The checkpoints."""
        return [self.source, self.inputs.b, self.inputs.others]

    def opened(self) -> wb.Weights:
        """A, open; B and the others are tried."""
        weights = super().opened()
        for model in [*([self.inputs.b.model] if self.inputs.b.filled else []), *self.inputs.others.models]:
            wb.load(model)
        return weights

    def suggested(self, names: list[str]) -> dict[str, str]:
        """The first two models."""
        return dict(zip((self.SOURCE, self.inputs.b.description), names, strict=False))

    def view_of(self, call: Call) -> View:
        """A surface's points are kept; the others are alike."""
        return self.views[SurfaceView.NAME] if call.function is wb.surface else super().view_of(call)

    def show_progress(self, progress: wb.Progress) -> str:
        """The objective so far, and the figure of what is done."""
        told = super().show_progress(progress)
        if isinstance(progress, wb.MatchingProgress):
            told = f"sweep {progress.sweep}, objective {progress.objective:.6g}: {told}"
        return told

    def after_run(self) -> None:
        """Looks where the slider is now, if it has moved meanwhile."""
        if self._view.NAME == PathView.NAME and self.error is None and not self._closed:
            self._moved()

    def _moved(self) -> None:
        """Evaluates where the slider rests, unless it was there before."""
        if self.view.value == PathView.NAME and not self._recall() and not self.running:
            self.start()

    def _picked(self, name: str) -> None:
        """A layer, or a group of the groups' graph, was clicked."""
        members = self.result.structure.members() if isinstance(self.result, wb.PermutationGroups) else {}
        layers = self._view.layers_of(*members[name]) if name in members else (name,)
        self._attempt(lambda: self.choose(layers))

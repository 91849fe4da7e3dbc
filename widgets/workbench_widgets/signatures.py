"""`wb.ui.SignatureExplorer`: what changed between models, which part of that is robustness, and merges."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call
from workbench_widgets.changes_view import ChangesView
from workbench_widgets.cosines_view import CosinesView
from workbench_widgets.evaluation import Network
from workbench_widgets.merge_view import MergeView
from workbench_widgets.patch_view import PatchView
from workbench_widgets.plot import Plot
from workbench_widgets.saving_explorer import SavingExplorer
from workbench_widgets.shared import FieldStyle
from workbench_widgets.signature_inputs import SignatureInputs
from workbench_widgets.similarity_view import SimilarityView
from workbench_widgets.style import Theme
from workbench_widgets.view import View

THIRD = "third figure"
APPLIED = (wb.Signature.apply, wb.Signature.remove, wb.diff)


class SignatureExplorer(SavingExplorer):
    """A base and models: what changed over noise, cosines, signatures, patches with live accuracy, merges.

    Each view is a call: `wb.diff`, `wb.similarity` of what `wb.signature` finds, `Signature.apply`, `wb.merge`. What a
    view needs of another is computed once and remembered. As the sliders of `patch` move, the network with the
    signatures is evaluated, and without them again.

    Args:
        base: a path, or a model: anything `wb.load` takes; for signatures the common ancestor.
        models: label → model, a list of models or one; for signatures those that were tuned to corrupted data.
        clean: for signatures, what was tuned from the base on clean data; it is what is patched.
        evaluator: of the networks, made by `wb.evaluator`: tells loss and metrics of patches and merges.
        floor: another seed of the base, whose distance is noise.
        signatures: label → Signature or the path of its file, in place of those that are taken of the models.
        data: batches to estimate running statistics on; None for the evaluator's.
        types: label → type, of the signatures.
        layers: names or globs that are compared; None for all.
        groups: of layers, each names or globs, with sliders of their own; none for all layers together.
        detail: `lorenz`, `outliers`, `spectra`: tables to add to the changes.
        scale: where sliders of α begin; None for 1/K of K signatures, to a step of 0.05 and at least that.
        batch_norm: `untouched`, `copied` or `re-estimated`; needed for patches of networks with batch norm, there or
            on the screen.
        method: of merging.
        view: `changes`, `cosines`, `signatures`, `patch` or `merge`.
        theme: `auto` follows JupyterLab, `light` and `dark` do not.

    Example:
        >>> import torch, workbench as wb
        >>> base, tuned = {"fc.weight": torch.eye(2)}, {"fc.weight": torch.tensor([[1.0, 1.0], [0.0, -1.0]])}
        >>> explorer = wb.ui.SignatureExplorer(base, {"tuned": tuned})
        >>> explorer.run().row("fc")["sign_conflict"]
        0.5
    """

    SOURCE: ClassVar[str] = "Base"
    ASKED: ClassVar[str] = "the models"
    TITLE: ClassVar[str] = "Click a row to select its layer"
    VIEWS: ClassVar[tuple[type[View], ...]] = (ChangesView, CosinesView, SimilarityView, PatchView, MergeView)
    RESULTS: ClassVar[tuple[type[wb.Result], ...]] = (wb.Diff, wb.Similarity)

    inputs: SignatureInputs

    def __init__(
        self,
        base: Any = None,
        models: Any = None,
        *,
        clean: Any = None,
        evaluator: Any = None,
        floor: Any = None,
        signatures: Mapping[str, Any] | None = None,
        data: Any = None,
        types: Mapping[str, str] | None = None,
        layers: str | Sequence[str] | None = None,
        groups: Sequence[str | Sequence[str]] = (),
        detail: Sequence[str] = (),
        scale: float | None = None,
        batch_norm: str | None = None,
        method: str = "ties",
        view: str = ChangesView.NAME,
        theme: Theme = "auto",
    ) -> None:
        self._shared = {
            "models": models,
            "clean": clean,
            "floor": floor,
            "signatures": signatures,
            "network": Network(evaluator),
            "data": data,
            "types": types,
            "layers": layers,
            "groups": groups.split(";") if isinstance(groups, str) else groups,
            "batch_norm": batch_norm,
        }
        initial = {"detail": [detail] if isinstance(detail, str) else detail, "scale": scale, "method": method}
        super().__init__(base, view=view, initial=initial, theme=theme)

    def make_plots(self) -> dict[str, Plot]:
        """Three places for figures."""
        return {**super().make_plots(), THIRD: Plot(THIRD, self._picked)}

    def make_shared(self, style: FieldStyle) -> SignatureInputs:
        """The models, and what is shown of them."""
        found = SignatureInputs(style, first=lambda: self.source.model, **self._shared)
        del self._shared
        return found

    def shared(self) -> list[ipw.DOMWidget]:
        """All controls that several views have."""
        inputs = self.inputs
        fields = [inputs.models, inputs.clean, inputs.floor, inputs.layers, inputs.batch_norm, inputs.groups]
        return [*fields, inputs.layer, inputs.model]

    def looks(self) -> list[ipw.DOMWidget]:
        """The model that is shown: nothing is computed anew."""
        return [self.inputs.model]

    def sources(self) -> list[ipw.ValueWidget]:
        """The models."""
        return [self.source, self.inputs.models, self.inputs.clean, self.inputs.floor]

    def suggested(self, names: list[str]) -> dict[str, str]:
        """The first model as the base, and the others as what is compared with it."""
        others = {self.inputs.models.description: ", ".join(names[1:])} if names[1:] else {}
        return super().suggested(names) | others

    def opened(self) -> wb.Weights:
        """The base, open; the others are tried."""
        weights = super().opened()
        self.inputs.know_model(weights)
        fields = [field for field in (self.inputs.clean, self.inputs.floor) if field.filled]
        for model in [*self.inputs.models.models, *(field.model for field in fields)]:
            wb.load(model)
        return weights

    def _made(self, call: Call) -> Any:
        """What a call returns; networks with signatures at places where the sliders were before are let go."""
        found = super()._made(call)
        known = [one for one in self._memory.calls if one.function in APPLIED and _is_patched(one)]
        with self._lock:  # a run that began before what is known now has said so
            calls = [*self._wanted(), *filter(None, [self.made, self._started if self.running else None])]
        wanted = [part for one in calls for part in one.parts]
        self._memory.drop([one for one in known if one not in wanted])
        return found

    def _lived(self, call: Any, found: Any) -> None:
        """Shows what followed the controls, also where it is the result."""
        super()._lived(call, found)
        if isinstance(found, wb.Result):
            self._attempt(self._recall)


def _is_patched(call: Call) -> bool:
    return any(part.function is wb.Signature.apply for part in call.parts)

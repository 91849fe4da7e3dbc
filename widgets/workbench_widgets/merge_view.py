"""One model of several: a form of the method's parameters, what the merged network does, and its file."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import choices, one_of
from workbench_widgets.call import Call
from workbench_widgets.evaluation import Numbers
from workbench_widgets.merge_form import MergeForm
from workbench_widgets.patch_view import UNEVALUATED
from workbench_widgets.save_panel import SavePanel
from workbench_widgets.shared import FieldStyle
from workbench_widgets.signature_view import SignatureView
from workbench_widgets.style import status_html

MISMATCHES = choices(wb.merge, "mismatch")
WHAT = {"numbers": "merged", "base_numbers": "base"}


class MergeView(SignatureView):
    """`wb.merge` into the base; `wb.diff` says what that changed."""

    NAME: ClassVar[str] = "merge"
    FIGURES: ClassVar[tuple[str, ...]] = ("norms",)
    TABLE: ClassVar[str | None] = "layers"

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The method and its parameters."""
        one_of("method", initial["method"], tuple(wb.MERGE_METHODS))
        self._style, self._numbers = style, Numbers()
        self.method = ipw.Dropdown(
            options=list(wb.MERGE_METHODS),
            value=initial["method"],
            description="Method",
            tooltip="how the models are merged: a function of wb.merge",
            style=style,
        )
        self.form = MergeForm(style)
        self.mismatch = ipw.Dropdown(
            options=MISMATCHES,
            description="Mismatch",
            tooltip="tensors that a model lacks or has in another shape: refused, the base's, or what overlaps",
            style=style,
        )
        self.formula, self.told, self.notes = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.method.observe(lambda _: self._arrange(), "value")
        self._arrange()
        return [self.method, self.formula, self.form, self.mismatch, self.told, self.notes]

    def make_panel(self) -> ipw.DOMWidget:
        """Where the merged network is saved."""
        self.saving = SavePanel(self._saved, self.memory, [], "merged.safetensors", self._style)
        return self.saving

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The models, the method and its form."""
        return [self.inputs.models, *self.own, self.inputs.layer]

    def call(self) -> Call:
        """`wb.diff` of the base and the merged network."""
        return Call(wb.diff, (self.inputs.base(), {"merged": self.merged()}), name="changes")

    def merged(self) -> Call:
        """`wb.merge`."""
        keywords = {} if self.method.value == "ties" else {"method": self.method.value}
        keywords |= self.form.keywords()
        keywords |= {} if self.mismatch.value == "error" else {"mismatch": self.mismatch.value}
        return Call(wb.merge, (self.inputs.base(), list(self.inputs.given_models().values())), keywords, "merged")

    def arrive(self, call: Call | None, result: Any) -> None:
        """Says what is treated otherwise, and so where nothing can be evaluated."""
        super().arrive(call, result)
        self._numbers = Numbers()
        merged = self.memory.find(call.positional[1]["merged"]) if call is not None and self._is_own(call) else None
        self.notes.value = "".join(map(status_html, merged.notes)) if merged is not None else ""
        self.told.value = status_html(UNEVALUATED) if self.inputs.network.evaluator is None else ""

    def lives(self, call: Call | None, result: Any) -> Sequence[Call]:
        """What the merged network does, and the base."""
        if call is None or not self._is_own(call):
            return ()
        if self.inputs.network.evaluator is None:
            return ()
        base = Call(wb.load, (self.inputs.base(),), name="base_weights")
        weights = {"numbers": call.positional[1]["merged"], "base_numbers": base}
        return tuple(self.inputs.evaluation(one, name) for name, one in weights.items())

    def show_live(self, call: Call, value: Any) -> None:
        """Loss and metrics."""
        self._numbers.keep(call.name, value)
        self.told.value = self._numbers.html(WHAT)

    def _is_own(self, call: Call) -> bool:
        return call.function is wb.diff and "merged" in call.positional[1]

    def _saved(self, path: str) -> Call:
        return Call(wb.save, (self.merged(), path), name="file")

    def _arrange(self) -> None:
        kind = wb.MERGE_METHODS[self.method.value]
        self.form.arrange(self.method.value, {})
        self._numbers, self.told.value, self.notes.value = Numbers(), "", ""  # they were of another merge
        self.formula.value = status_html(f"{kind.FORMULA} ({kind.SOURCE})")

    def release(self) -> None:
        """Lets go of the numbers."""
        self._numbers = Numbers()

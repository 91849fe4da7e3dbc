"""Signatures on the clean network: a slider for each and each group of layers, and what the network then does."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.call import Call, Given
from workbench_widgets.evaluation import Numbers
from workbench_widgets.save_panel import SavePanel
from workbench_widgets.scale_sliders import ScaleSliders
from workbench_widgets.shared import FieldStyle
from workbench_widgets.signature_view import SignatureView
from workbench_widgets.style import status_html

WHAT = {
    "numbers": "with the signatures",
    "control_numbers": "batch norm alone, α = 0",
    "clean_numbers": "clean",
    "off_numbers": "taken off again",
}
NETWORK = "the patched network"
UNEVALUATED = "no loss to tell: give the explorer evaluator=wb.evaluator(module, data, loss)"


class PatchView(SignatureView):
    """`Signature.apply` of one signature after the other; `wb.diff` says what that changed."""

    NAME: ClassVar[str] = "patch"
    FIGURES: ClassVar[tuple[str, ...]] = ("norms",)
    TABLE: ClassVar[str | None] = "layers"

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The sliders, and what the network does."""
        self._style, self._numbers, self._where = style, Numbers(), ""
        self.scales = ScaleSliders(style, initial["scale"])
        self.told = ipw.HTML()
        for control in (self.inputs.models, self.inputs.groups):
            control.observe(lambda _: self._arrange(), "value")
        return [self.scales, self.told]

    def make_panel(self) -> ipw.DOMWidget:
        """Where a signature, or the network, is saved."""
        self.what = ipw.Dropdown(options=[NETWORK], description="Of", tooltip="what is saved", style=self._style)
        bits = [("exactly", None), *((f"{bits} bits", bits) for bits in range(8, 1, -1))]
        self.bits = ipw.Dropdown(
            options=bits, index=0, description="Elements", tooltip="of a signature, packed", style=self._style
        )
        self.what.observe(lambda _: self._enable(), "value")
        self.saving = SavePanel(self._saved, self.memory, [self.what, self.bits], "signature.safetensors", self._style)
        self._arrange()
        return self.saving

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The models, the policy of running statistics, the groups of layers, and the sliders."""
        inputs = self.inputs
        return [inputs.models, inputs.clean, inputs.batch_norm, inputs.groups, *self.own, inputs.layer]

    @property
    def looks(self) -> list[ipw.DOMWidget]:
        """The sliders: what they stand for follows them."""
        return [self.scales]

    def call(self) -> Call:
        """`wb.diff` of the clean network and itself with the signatures."""
        return Call(wb.diff, (self.inputs.given_clean(), {"patched": self.patched()}), name="changes")

    def patched(self) -> Any:
        """The network at the sliders' places: `Signature.apply` for each that is not at 0; the last has the policy.

        Raises:
            wb.ArgumentError: running statistics would be copied of several networks, or an input is missing.
        """
        made, policy, steps = self.inputs.signatures(), self.inputs.policy(), self._steps()
        weights: list[Call | Given] = [self.inputs.given_clean()]
        for number, (label, group, scale) in enumerate(steps, start=1):
            last = number == len(steps)
            keywords: dict[str, Any] = {"scale": scale} if scale != 1 else {}
            keywords |= {"layers": list(group)} if group else {}
            keywords |= policy if last else {"batch_norm": "untouched"} if policy else {}
            name = "patched" if last else f"patched_{number}"
            weights.append(Call(wb.Signature.apply, (made[label], weights[-1]), keywords, name))
        return weights[-1]

    def off(self) -> Call:
        """The network with all of them taken off again, the last one first."""
        weights = self.patched()
        depth = sum(part.function is wb.Signature.apply for part in weights.parts)
        for number in reversed(range(depth)):
            weights = Call(wb.Signature.remove, (weights,), name=f"off_{number}" if number else "off")
        return weights

    def arrive(self, call: Call | None, result: Any) -> None:
        """Says so where nothing can be evaluated."""
        super().arrive(call, result)
        if self.inputs.network.evaluator is None:
            self.told.value = status_html(UNEVALUATED)

    def lives(self, call: Call | None, result: Any) -> Sequence[Call]:
        """What the network does at the sliders' places, what that changed, and what it does without."""
        if call is None:
            return ()
        if self.inputs.network.evaluator is None:
            return (self.call(),)
        own = {"numbers": self.patched(), "off_numbers": self.off()}
        own["clean_numbers"] = Call(wb.load, (self.inputs.given_clean(),), name="clean_weights")
        if self.inputs.policy().get("batch_norm") in ("copied", "re-estimated"):
            signature = self.inputs.signatures()[self._steps()[-1][0]]  # the one that brings the statistics
            arguments, keywords = (signature, self.inputs.given_clean()), {"scale": 0.0} | self.inputs.policy()
            own["control_numbers"] = Call(wb.Signature.apply, arguments, keywords, "control")
        numbers = {name: self.inputs.evaluation(weights, name) for name, weights in own.items()}
        return (numbers.pop("numbers"), self.call(), *numbers.values())

    def show_live(self, call: Call, value: Any) -> None:
        """Loss and metrics, the sliders' places beside them; errors of the difference too."""
        if call.name not in WHAT and not isinstance(value, Exception):
            return
        name = call.name if call.name in WHAT else "numbers"
        self._numbers.keep(name, value)
        if name == "numbers":  # the places that these numbers are of: the others may be known before them
            places = [
                f"{scale:g} × {label}" + (f" in {', '.join(group)}" if group else "")
                for label, group, scale in self.scales.steps()
            ]
            where = " + ".join(places) or "α = 0 everywhere"
            if where != self._where:
                self._numbers.drop("off_numbers")  # of the places before
            self._where = where
        same = self._numbers.same("off_numbers", "clean_numbers")
        names = WHAT | ({"off_numbers": f"{WHAT['off_numbers']}, the same"} if same else {})
        line = status_html(self._where) if self._where else ""
        self.told.value = line + self._numbers.html(names)

    def _steps(self) -> list[tuple[str, tuple[str, ...], float]]:
        """Label, group and α of every slider that is not at 0; where all are, the first signature at 0.

        Raises:
            wb.ArgumentError: running statistics would be copied of several networks, which the last of them would win.
        """
        self._arrange(strict=True)
        steps = self.scales.steps() or [(label, (), 0.0) for label in self.inputs.labels[:1]]
        labels = list(dict.fromkeys(label for label, _, _ in steps))
        if self.inputs.batch_norm.value == "copied" and len(labels) > 1:
            raise wb.ArgumentError(
                f"batch_norm='copied' with {' and '.join(labels)} on: of which robust network? Leave one signature on, "
                "the others at α = 0, or say 're-estimated'."
            )
        return steps

    def _saved(self, path: str) -> Call:
        if self.what.value == NETWORK:
            return Call(wb.save, (self.patched(), path), name="file")
        keywords = {} if self.bits.value is None else {"bits": self.bits.value}
        return Call(wb.Signature.save, (self.inputs.signatures()[self.what.value], path), keywords, "file")

    def _arrange(self, *, strict: bool = False) -> None:
        try:
            labels = self.inputs.labels
            self.scales.arrange(labels, self.inputs.layer_groups())
        except wb.ArgumentError:  # said when something is computed
            if strict:
                raise
            return
        options = [*labels, NETWORK]
        if list(self.what.options) != options:
            self.what.options = options
        self._enable()

    def _enable(self) -> None:
        self.bits.disabled = self.what.value == NETWORK

    def release(self) -> None:
        """Lets go of the numbers."""
        self._numbers = Numbers()

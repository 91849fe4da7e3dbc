"""Signatures of models that were tuned to corrupted data, and how alike they are."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

import ipywidgets as ipw
import pandas as pd

import workbench as wb
from workbench_widgets.call import Call, Given
from workbench_widgets.signature_view import SignatureView


class SimilarityView(SignatureView):
    """`wb.signature` of each model, and `wb.similarity` of them all."""

    NAME: ClassVar[str] = "signatures"
    SHOWS: ClassVar[type[wb.Result]] = wb.Similarity
    FIGURES: ClassVar[tuple[str, ...]] = ("cosine",)
    TABLE: ClassVar[str | None] = "nearest"
    HEIGHT: ClassVar[int] = 460

    def make_panel(self) -> ipw.DOMWidget:
        """What is said of each signature."""
        self.panel = ipw.HTML()
        return self.panel

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """Clean and robust models, and the layer."""
        return [self.inputs.models, self.inputs.clean, self.inputs.layer]

    def call(self) -> Call:
        """`wb.similarity`."""
        return self.inputs.alike()

    def names(self, result: Any) -> list[str]:
        """The layers of the cosines."""
        return list(dict.fromkeys(result.tables["layer_pairs"]["layer"]))

    def options(self, kind: str, result: Any, layer: str | None) -> Mapping[str, Any]:
        """None."""
        return {}

    def layers(self, result: Any, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        """A pair's layer."""
        return super().layers(result, frame) if "layer" in frame else [()] * len(frame)

    def arrive(self, call: Call | None, result: Any) -> None:
        """The layers, and what is said of the signatures."""
        super().arrive(call, result)
        made = call.positional[0] if call is not None else {}
        found = {label: one.value if isinstance(one, Given) else self.memory.find(one) for label, one in made.items()}
        self.panel.value = signatures_html({label: one for label, one in found.items() if one is not None})


def signatures_html(signatures: Mapping[str, wb.Signature]) -> str:
    """Size, norm and notes of signatures, as a page's fragment."""
    rows: Sequence[str] = [
        f"<tr><td>{escape(label)}</td><td>{'<br>'.join(escape(line) for line in repr(one).splitlines()[:-1])}</td></tr>"
        for label, one in signatures.items()
    ]
    return f'<div class="wb-about"><h4>Signatures</h4><table>{"".join(rows)}</table></div>' if rows else ""

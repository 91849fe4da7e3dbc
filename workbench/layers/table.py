"""`wb.layers`: every tensor of a model, analysed or excluded with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.layers.views import Layer, layer_views
from workbench.results import LAYER_COLUMNS, Column, LayerResult
from workbench.weights import ModelLike, load


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LayerTable(LayerResult):
    """One row per tensor, or per part of one; `elements` of all rows add up to the model's, tied names counted once."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "layers": {
            **LAYER_COLUMNS,
            "tensor": Column("the tensor's name", str, ""),
            "kind": Column("linear, embedding, conv1d, conv2d, conv3d; empty if excluded", str, ""),
            "shape": Column("the shape of the tensor, or of the part", str, ""),
            "rows": Column("rows of each matrix; 0 if excluded", int, "rows", low=0),
            "cols": Column("columns of each matrix; 0 if excluded", int, "cols", low=0),
            "matrices": Column("matrices in the layer: one per kernel position and group; 0 if excluded", int, low=0),
            "elements": Column("elements; 0 for a second name of a tied tensor", int, low=0),
            "bytes": Column("bytes as stored", int, "B", low=0),
            "dtype": Column("dtype as stored", str, ""),
        }
    }
    NEXT: ClassVar[str] = "wb.spectrum(model), .frame().query(\"verdict == 'excluded'\")"

    def facts(self) -> str:
        """Counts of analysed and excluded tensors and their elements."""
        table = self.tables["layers"]
        analysed = [verdict == "analysed" for verdict in table["verdict"]]
        inside = sum(n for n, yes in zip(table["elements"], analysed, strict=True) if yes)
        seen = {tensor for tensor, yes in zip(table["tensor"], analysed, strict=True) if yes}
        return (
            f"{self.title}: {len(seen):,} of {len(set(table['tensor'])):,} tensors are weight matrices, "
            f"with {inside:,} of {sum(table['elements']):,} elements"
        )


def layers(model: ModelLike) -> LayerTable:
    """Every tensor of a model: how it is seen as matrices, or why it is not.

    Args:
        model: anything `wb.load` takes.

    Returns:
        A table with a row per tensor in order of depth; fused q/k/v, packed experts and the gates of LSTM and GRU
        have a row each (`attn.c_attn.q`, `experts.3`, `rnn.weight_ih_l0.f`). `verdict` is `analysed` or `excluded`;
        every exclusion has its `reason`, and the elements of all rows add up to the model's.

    Raises:
        CheckpointError: the model cannot be opened.

    Cost: the header; no tensor is read.

    Source: the layer rules of the released WeightWatcher and FARMS code; unlike them nothing is dropped silently.

    Misreads: without code a file cannot tell a Conv1d from packed experts, nor the input of a 2-D tensor from its
    output; such tensors are excluded, or seen as they lie (`rows` is the first axis).

    Example:
        >>> import torch
        >>> table = layers(torch.nn.Linear(3, 2))
        >>> table.frame()[["layer", "rows", "cols", "verdict"]].values.tolist()
        [['weight', 2, 3, 'analysed'], ['bias', 0, 0, 'excluded']]
    """
    weights = load(model)
    rows: list[dict[str, Any]] = []
    for view in layer_views(weights):
        info = weights.infos[view.tensor]
        row = {
            "tensor": view.tensor,
            "depth": view.depth,
            "shape": "×".join(map(str, info.shape)) or "scalar",
            "elements": info.elements,
            "bytes": info.bytes,
            "dtype": str(info.dtype).removeprefix("torch."),
        }
        if isinstance(view, Layer):
            count, height, width = view.extent()
            row |= {"shape": "×".join(map(str, view.shape)), "elements": view.elements}
            row |= {"bytes": view.elements * info.dtype.itemsize}
            row |= {"layer": view.layer, "kind": view.kind, "rows": height, "cols": width, "matrices": count}
            row |= {"verdict": "analysed", "reason": view.remark}
        else:
            row |= {"layer": view.tensor, "kind": "", "rows": 0, "cols": 0, "matrices": 0}
            row |= {"verdict": "excluded", "reason": view.reason}
        rows.append(row)
    return LayerTable(tables={"layers": LayerTable.columns("layers", rows)}, meta=weights.provenance("wb.layers"))

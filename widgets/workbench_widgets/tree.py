"""The tree of a checkpoint's tensors, from the header alone."""

import glob
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anywidget
import traitlets

import workbench as wb
from workbench_widgets.amounts import count_text, size_text


@dataclass
class Node:
    """A module or a tensor in the tree.

    Attributes:
        path: the tensor's name, or the part of it that the tensors below share.
        label: the last part of the path.
        parent: place of the parent in the list of nodes; −1 for the root.
        layer: the layer id, if it is one tensor or one part.
        layers: ids of the layers in it.
        bytes: bytes in it as stored, tied tensors counted once.
        read: bytes that are read to look into it: a part is read with its whole tensor.
        tensors: tensors in it.
        tensor: what the header tells of the tensor, if it is one.
        patterns: what `layers=` selects it with.
    """

    path: str
    label: str
    parent: int
    layer: str = ""
    layers: list[str] = field(default_factory=list)
    bytes: int = 0
    read: int = 0
    tensors: int = 0
    tensor: str = ""
    patterns: list[str] = field(default_factory=list)


def tree_nodes(table: wb.LayerTable, title: str) -> list[Node]:
    """The nodes in the checkpoint's own order, each after its parent; the first is the checkpoint itself.

    Args:
        table: what `wb.layers` says; parts of one tensor become its children.
        title: what the root is called.
    """
    cells = table.tables["layers"]
    nodes, places = [Node("", title, -1)], dict[tuple[str, ...], int]()
    rows_of = Counter(cells["tensor"])
    seen: set[str] = set()
    for row, layer in enumerate(cells["layer"]):
        tensor, size = cells["tensor"][row], cells["bytes"][row]
        part = rows_of[tensor] > 1
        keys = [*tensor.split("."), *([_suffix(layer, tensor)] if part else [])]
        counted = 0 if tensor in seen else 1
        seen.add(tensor)
        above = [0]
        for end in range(1, len(keys) + 1):
            key = tuple(keys[:end])
            if key not in places:
                places[key] = len(nodes)
                nodes.append(Node(".".join(key), keys[end - 1], above[-1]))
            above.append(places[key])
        told = " ".join([cells["shape"][row], cells["dtype"][row]])
        if part:
            whole = nodes[above[-2]]
            whole.tensor, whole.patterns = f"{cells['dtype'][row]} in parts", [tensor]
        leaf = nodes[above[-1]]
        leaf.layer, leaf.tensor, leaf.patterns = layer, told, [layer]
        for place in above:
            nodes[place].layers.append(layer)
            nodes[place].bytes += size
            nodes[place].tensors += counted
    for node in nodes[1:]:
        whole = nodes[node.parent]
        node.read = whole.bytes if node.layer and whole.tensor and whole.patterns != [whole.layer] else node.bytes
        if not node.tensor:
            node.patterns = [f"{glob.escape(node.path)}.*"]
        elif node.layer and len(node.layers) > 1:  # a tensor called like a module
            node.patterns = [node.layer, f"{glob.escape(node.path)}.*"]
    return nodes


def _suffix(layer: str, tensor: str) -> str:
    """What a part's id says beyond its tensor's name."""
    whole = next(name for name in (tensor, tensor.removesuffix(".weight")) if layer.startswith(f"{name}."))
    return layer.removeprefix(f"{whole}.")


class TensorTree(anywidget.AnyWidget):
    """A tree that draws only what is unfolded, so that tens of thousands of tensors cost no more than a hundred.

    Attributes:
        value: paths of the selected nodes; `""` is the checkpoint itself.
        marks: path → a word shown beside a node.
    """

    _esm = Path(__file__).with_name("tree.js").read_text()  # anywidget never frees the widgets of a path
    _css = Path(__file__).with_name("tree.css").read_text()

    rows = traitlets.List().tag(sync=True)
    value = traitlets.List(traitlets.Unicode()).tag(sync=True)
    marks = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._places: dict[str, Node] = {}
        self._leaves: dict[str, Node] = {}

    def show(self, nodes: list[Node]) -> None:
        """Shows other nodes; nothing is selected or marked then."""
        self.nodes, self._places = nodes, {node.path: node for node in nodes}
        self._leaves = {node.layer: node for node in nodes if node.layer}
        with self.hold_sync():
            self.value, self.marks = [], {}
            self.rows = [_row(node) for node in nodes]

    def selected(self) -> list[Node]:
        """The selected nodes that there are."""
        return [self._places[path] for path in self.value if path in self._places]

    def unknown(self) -> list[str]:
        """What is selected and is no node."""
        return [path for path in self.value if path not in self._places]

    def node_of(self, layer: str) -> Node | None:
        """The node that is a layer."""
        return self._leaves.get(layer)


def _row(node: Node) -> list[Any]:
    inside = node.tensor or count_text(node.tensors, "tensor")
    return [node.path, node.label, node.parent, inside, size_text(node.bytes), bool(node.tensor)]

"""How many nodes and edges networks need in each basis: the claims about the local interaction basis, counted.

`python data/degeneracy_study.py [--quick] [--out DIR]` takes the shipped networks, ablates the nodes of every layer in
every basis and the edges between layers in the local basis and in PCA, and writes data/results. About half an hour on
one core.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import build
import torch

import workbench as wb
from workbench.results import Column, Result, versions

KINDS = ("local", "pca", "gradient-flow", "integrated")
EDGES = ("local", "pca")
TOLERANCE = 0.001  # of the test accuracy, as in the authors' ablations
LAYERS = {"modular-addition": ["resid_pre", "resid_mid", "resid_post"], "digits-mlp512": None, "digits-cnn32": None}
CUT_EDGES = ("modular-addition",)  # whose edges are cut as well
PUBLISHED = [  # of the authors' five networks: layer, nodes local and PCA, edges local and PCA
    ("resid_pre", (15, 9, 10, 9, 13), (15, 9, 10, 9, 13), (133, 80, 71, 58, 91), (167, 76, 99, 115, 130)),
    ("resid_mid", (17, 13, 15, 13, 19), (17, 13, 15, 13, 19), (82, 75, 71, 60, 82), (114, 53, 71, 71, 117)),
    ("resid_post", (9, 10, 8, 7, 11), (9, 10, 9, 7, 10), (633, 699, 610, 535, 694), (682, 734, 598, 547, 752)),
]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DegeneracyStudy(Result):
    """Nodes and edges that keep the test accuracy, by network, basis and layer, beside what was published."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "nodes": {
            "network": Column("name of the checkpoint", str, ""),
            "seed": Column("its seed", int, "", low=0),
            "kind": Column("kind of basis", str, ""),
            "layer": Column("whose nodes are cut", str, ""),
            "nodes": Column("nodes of the layer, with the constant", int, low=1),
            "predicted": Column("1 + number of Λ > 1e-3·Λmax", int, low=1),
            "smallest": Column("smallest number of nodes within 0.001 of the accuracy", int, low=0),
            "needed": Column("from which on every number that was tried is", int, low=0),
        },
        "edges": {
            "network": Column("name of the checkpoint", str, ""),
            "seed": Column("its seed", int, "", low=0),
            "kind": Column("kind of basis", str, ""),
            "layer": Column("where the edges start", str, ""),
            "edges": Column("edges between nodes that are not constant", int, low=0),
            "needed": Column("edges within 0.001 of the accuracy, by bisection", int, low=0),
        },
        "published": {
            "kind": Column("kind of basis", str, ""),
            "layer": Column("as named here", str, ""),
            "seed": Column("of the authors' network", int, "", low=0),
            "nodes": Column("smallest number of nodes within 0.001 of the accuracy", int, low=0),
            "edges": Column("edges within 0.001, by bisection", int, low=0),
        },
    }
    NEXT: ClassVar[str] = ".frame(), .frame('edges'), .frame('published')"


def counted(name: str, seed: int, quick: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of nodes and edges of one checkpoint."""
    recipe = build.RECIPES[name]
    split = recipe.split(recipe.input_shape)
    module = recipe.module()
    module.load_state_dict(dict(wb.load(build.CHECKPOINTS / f"{name}-seed{seed}.safetensors")))
    rows = slice(0, 300 if quick else None)
    data = list(split.train_x[rows].split(1000))
    test = list(zip(split.test_x[rows].split(1000), split.test_y[rows].split(1000), strict=True))
    evaluator = wb.evaluator(module, test, "cross_entropy", device="cpu")
    nodes, edges = [], []
    for kind in KINDS:
        basis = wb.interaction_basis(module, data, LAYERS[name], kind=kind, device="cpu")
        for layer in basis.layers[:-1]:
            total = basis.nodes(layer)
            counts = sorted({*range(min(total, 60)), *(int(1.1**k) for k in range(80) if 1.1**k < total), total})
            found = wb.ablation(evaluator, basis, layer, counts=counts, tolerance=TOLERANCE)
            own = {"network": name, "seed": seed, "kind": kind, "layer": layer}
            nodes.append(
                own
                | {
                    "nodes": total,
                    "predicted": basis.predicted_nodes(layer),
                    "smallest": smallest(found),
                    "needed": found.needed,
                }
            )
            print(*nodes[-1].values(), flush=True)
        if name in CUT_EDGES and kind in EDGES:
            graph = wb.interaction_graph(module, data, basis)
            for layer in basis.layers[:-1]:
                found = wb.ablation(evaluator, basis, layer, graph=graph, schedule="bisect", tolerance=TOLERANCE)
                own = {"network": name, "seed": seed, "kind": kind, "layer": layer}
                edges.append(own | {"edges": found.total, "needed": found.needed})
                print(*edges[-1].values(), flush=True)
    return nodes, edges


def smallest(found: wb.Ablation) -> int:
    """The smallest number within tolerance, whatever larger ones give: what the authors' counts are."""
    least = found.unablated["accuracy"] - TOLERANCE
    points = found.tables["points"]
    return min(kept for kept, right in zip(points["kept"], points["accuracy"], strict=True) if right >= least)


def study(names: Sequence[str], quick: bool) -> DegeneracyStudy:
    begin = time.perf_counter()
    rows: dict[str, list[dict[str, Any]]] = {"nodes": [], "edges": [], "published": []}
    for name in names:
        for seed in build.RECIPES[name].seeds:
            nodes, edges = counted(name, seed, quick)
            rows["nodes"] += nodes
            rows["edges"] += edges
    for layer, *columns in PUBLISHED:
        for seed, (local, pca, edges_local, edges_pca) in enumerate(zip(*columns, strict=True)):
            rows["published"] += [
                {"kind": "local", "layer": layer, "seed": seed, "nodes": local, "edges": edges_local},
                {"kind": "pca", "layer": layer, "seed": seed, "nodes": pca, "edges": edges_pca},
            ]
    meta = {
        "source": "degeneracy",
        "function": "data/degeneracy_study.py",
        "tolerance": TOLERANCE,
        "versions": versions(),
        "seconds": time.perf_counter() - begin,
        "command": "python data/degeneracy_study.py",
    }
    return DegeneracyStudy(tables={name: DegeneracyStudy.columns(name, own) for name, own in rows.items()}, meta=meta)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts nodes and edges and saves them.")
    parser.add_argument("--quick", action="store_true", help="300 samples, to see that it runs")
    parser.add_argument("--only", choices=LAYERS, metavar="NAME", help="one of the networks")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = study([arguments.only] if arguments.only else list(LAYERS), arguments.quick)
    found.save(arguments.out / "degeneracy")


if __name__ == "__main__":
    main()

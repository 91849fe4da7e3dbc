"""Agreement with the interaction bases that their authors published for modular addition.

`--rib DIR` is a checkout of the authors' repository (ApolloResearch/rib), which has five trained networks, their bases,
edges and ablations. Compared are Λ and squared edges, number by number, and the counts of nodes and edges that keep the
test accuracy within 0.1 points. Exit code 1 on a difference.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from architectures import ModularAddition  # noqa: E402 - data/ is no package
from splits import MODULUS, TRAIN_SHARE  # noqa: E402

import workbench as wb  # noqa: E402

NETWORKS = "rib_scripts/train_modular_arithmetic/sample_checkpoints"
RESULTS = "rib_scripts/rib_build/sample_configs_modadd/out"
LAYERS = {"resid_pre": "ln1.0", "resid_mid": "ln2.0", "resid_post": "unembed"}
LEADING = 8  # directions and nodes that are compared number by number
CLOSE = {"resid_pre": 5e-4, "resid_mid": 1e-6, "resid_post": 1e-6}
TOLERANCE = 0.001


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rib", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--edges", action="store_true", help="the counts of edges too, some minutes a network")
    options = parser.parse_args()
    agreed = [compared(options.rib, seed, options.edges) for seed in options.seeds]
    print("all agree" if all(agreed) else "NOT all agree")
    return 0 if all(agreed) else 1


def compared(rib: Path, seed: int, edges: bool) -> bool:
    """One network: prints what was compared and tells whether it agrees."""
    module, (tokens, test) = network(rib, seed), pairs()
    evaluator = wb.evaluator(module, test, "cross_entropy", device="cpu")
    agreed = True
    for kind, label in (("local", "rib"), ("pca", "pca")):
        basis = wb.interaction_basis(module, tokens, list(LAYERS), kind=kind, device="cpu")
        graph = wb.interaction_graph(module, tokens, basis)
        published = torch.load(
            rib / RESULTS / f"modular_arithmetic_{label}_seed{seed}_rib_graph.pt", map_location="cpu", weights_only=True
        )
        for layer, theirs in LAYERS.items():
            if kind == "local":
                agreed &= numbers(seed, layer, theirs, basis, graph, published)
            agreed &= nodes(rib, seed, label, layer, theirs, basis, evaluator)
            if edges:
                counted(rib, seed, label, layer, theirs, basis, graph, evaluator)
    return agreed


def numbers(
    seed: int,
    layer: str,
    theirs: str,
    basis: wb.InteractionBasis,
    graph: wb.InteractionGraph,
    published: Mapping[str, Any],
) -> bool:
    """Λ and edges of the leading directions; theirs keep those that are rounding, which moves the last digits."""
    rotation = next(one for one in published["interaction_rotations"] if one["node_layer"] == theirs)
    expected = rotation["Lambda"].sort(descending=True).values[1 : 1 + LEADING]  # the largest is the constant's
    edges = next(one for one in published["edges"] if one["in_node_layer"] == theirs)["E_hat"]
    after = slice(None, LEADING) if layer == "resid_post" else slice(1, 1 + LEADING)  # outputs have no constant there
    off = {
        "Λ": difference(basis.weights(layer)[:LEADING], expected),
        "E": difference(graph.edges[layer][1 : 1 + LEADING, 1 : 1 + LEADING], edges[after, 1 : 1 + LEADING]),
    }
    print(f"seed {seed} {layer}: " + ", ".join(f"{name} {value:.1e}" for name, value in off.items()))
    return max(off.values()) <= CLOSE[layer]


def difference(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − theirs‖/‖theirs‖."""
    return float((ours - theirs).norm() / theirs.norm())


def nodes(
    rib: Path, seed: int, label: str, layer: str, theirs: str, basis: wb.InteractionBasis, evaluator: wb.Evaluator
) -> bool:
    """The smallest number of nodes within the tolerance, where both tried every number."""
    file = rib / RESULTS / f"modular_arithmetic_node_{label}_seed{seed}_rib_ablation_results.json"
    published = json.loads(file.read_text())
    tried = {int(count): accuracy for count, accuracy in published["results"][theirs].items()}
    right = min(count for count, accuracy in tried.items() if accuracy >= published["no_ablation_result"] - TOLERANCE)
    found = wb.ablation(evaluator, basis, layer, counts=list(range(40)), tolerance=TOLERANCE)
    good = [
        kept
        for kept, accuracy in zip(found.tables["points"]["kept"], found.tables["points"]["accuracy"], strict=True)
        if accuracy >= found.unablated["accuracy"] - TOLERANCE
    ]
    ours = min(good)
    print(f"seed {seed} {layer} {label}: {ours} nodes, published {right}, predicted {basis.predicted_nodes(layer)}")
    return abs(ours - right) <= 1  # theirs were evaluated in float32, and a node more or less is a few of 8939 answers


def counted(
    rib: Path,
    seed: int,
    label: str,
    layer: str,
    theirs: str,
    basis: wb.InteractionBasis,
    graph: wb.InteractionGraph,
    evaluator: wb.Evaluator,
) -> None:
    """Edges by bisection; shown only, since a bisection of a bumpy curve ends where its grid leads it."""
    file = rib / RESULTS / f"modular_arithmetic_{label}_seed{seed}_edge_ablation_results.json"
    published = json.loads(file.read_text())["n_edges_required"][theirs]
    found = wb.ablation(evaluator, basis, layer, graph=graph, schedule="bisect", tolerance=TOLERANCE)
    print(f"seed {seed} {layer} {label}: {found.needed} edges, published {published}")


def pairs() -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Training tokens, and test tokens with answers, split as theirs are."""
    grid = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
    tokens, answers = torch.cat([grid, torch.full((len(grid), 1), MODULUS)], 1), grid.sum(1) % MODULUS
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))  # as random_split draws
    train, test = order.tensor_split([int(TRAIN_SHARE * len(grid))])
    return [tokens[train]], [(tokens[test], answers[test])]


def network(rib: Path, seed: int) -> nn.Module:
    """A published network in our module; theirs keeps matrices per head and transposed."""
    folder = next(
        one for one in sorted((rib / NETWORKS).iterdir()) if one.name.startswith(f"seed{seed}-" if seed else "lr")
    )
    stored = torch.load(folder / "model_epoch_60000.pt", map_location="cpu", weights_only=True)
    block = {name.removeprefix("blocks.0."): tensor for name, tensor in stored.items()}
    state = {"embedding.weight": stored["embed.W_E"], "positions": stored["pos_embed.W_pos"]}
    for part in "QKV":
        state[f"{part.lower()}.weight"] = block[f"attn.W_{part}"].transpose(1, 2).flatten(0, 1)
        state[f"{part.lower()}.bias"] = block[f"attn.b_{part}"].flatten()
    state |= {"o.weight": block["attn.W_O"].flatten(0, 1).T, "o.bias": block["attn.b_O"]}
    state |= {"up.weight": block["mlp.W_in"].T, "up.bias": block["mlp.b_in"]}
    state |= {"down.weight": block["mlp.W_out"].T, "down.bias": block["mlp.b_out"]}
    state |= {"unembed.weight": stored["unembed.W_U"].T, "unembed.bias": stored["unembed.b_U"]}
    module = ModularAddition(MODULUS)
    module.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()})
    return module.eval()


if __name__ == "__main__":
    sys.exit(main())

"""What weight matching does to pairs of networks trained on digits: the claims of Ito et al. with their spread.

`python data/connectivity_study.py [--quick] [--models DIR] [--out DIR]` trains ten networks of each architecture
(recipe of `build.py`, seeds 100 to 109), matches them in five disjoint pairs, and writes data/results. Networks of
width 128 are merged in threes as well. `--models` keeps the trained networks, so that a second run only measures.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import build
import torch
from architectures import CNN, ResNet, Transformer, mlp
from torch import Tensor, nn

import workbench as wb
from workbench.results import Column, Result, versions
from workbench.runtime import reset_statistics

SEEDS = tuple(range(100, 110))
GAMMAS = (0.0, 0.1, 0.3, 0.5)
POINTS = 25
NETWORKS = {
    "mlp32": (lambda: mlp(32), (64,)),
    "mlp128": (lambda: mlp(128), (64,)),
    "mlp512": (lambda: mlp(512), (64,)),
    "cnn32": (lambda: CNN(32), (1, 8, 8)),
    "resnet48": (lambda: ResNet(48), (1, 8, 8)),
    "transformer": (Transformer, build.RECIPES["digits-transformer"].input_shape),
}
MANY = "mlp128"  # of which three are merged


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ConnectivityStudy(Result):
    """Pairs of networks before and after matching, and three networks merged."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "pairs": {
            "network": Column("the architecture", str, ""),
            "seed_a": Column("of the network that stays", int, "", low=0),
            "seed_b": Column("of the network that is permuted", int, "", low=0),
            "method": Column("none, weights or activations", str, ""),
            "barrier": Column("of the loss on the training images, 25 points", float, "nats"),
            "loss_a": Column("loss of A on the training images", float, "nats", low=0),
            "loss_b": Column("loss of B, permuted or not", float, "nats", low=0),
            "middle": Column("accuracy on the test images half way", low=0, high=1),
            "ends": Column("mean accuracy of A and B on the test images", low=0, high=1),
            "distance": Column("‖A − π(B)‖", low=0),
            "reduction": Column("1 − ‖A − π(B)‖/‖A − B‖", high=1),
            "singular_values": Column("largest relative change of a singular value by π", low=0),
            "spectra": Column("‖σ(A) − σ(B)‖/‖σ(A)‖ over all layers", low=0),
            "shortened": Column("largest loss along A → B within the length ‖A − π(B)‖", float, "nats", low=0),
            "highest": Column("largest loss along A → π(B)", float, "nats", low=0),
        },
        "alignment": {
            "network": Column("the architecture", str, ""),
            "seed_a": Column("of the network that stays", int, "", low=0),
            "method": Column("weights or activations", str, ""),
            "gamma": Column("singular vectors with σ ≥ γ·σmax count", low=0, high=1),
            "before": Column("R(γ) without permutation", low=-1, high=1),
            "after": Column("R(γ) after it", low=-1, high=1),
        },
        "three": {
            "seeds": Column("of A, B and C", str, ""),
            "method": Column("none; weights (B and C each to A); merge-many", str, ""),
            "pair": Column("AB, AC or BC", str, ""),
            "barrier": Column("of the loss on the training images", float, "nats"),
        },
    }
    NEXT: ClassVar[str] = ".frame(), .frame('alignment'), .frame('three')"


def networks(seeds: Sequence[int], models: Path | None) -> dict[str, dict[int, dict[str, Tensor]]]:
    """Architecture → seed → state dict, trained where they are not kept."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, (module, shape) in NETWORKS.items():
        recipe = build.Recipe(name=name, architecture=name, module=module, input_shape=shape)
        for seed in seeds:
            path = models / f"{name}-{seed}.pt" if models else None
            if path and path.exists():
                state = torch.load(path, weights_only=True)
            else:
                state = {key: tensor.clone() for key, tensor in build.train(recipe, seed).state_dict().items()}
                if path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    torch.save(state, path)
            found.setdefault(name, {})[seed] = state
    return found


class Bench:
    """An architecture with its data, as the measurements need it."""

    def __init__(self, name: str) -> None:
        make, shape = NETWORKS[name]
        self.module, data = make().eval(), build.digits(shape)
        batches = [(data.train_x, data.train_y)]
        self.train = wb.evaluator(self.module, batches, "cross_entropy", device="cpu")
        self.test = wb.evaluator(self.module, [(data.test_x, data.test_y)], "cross_entropy", device="cpu")
        self.groups = wb.permutation_groups(self.module, data.train_x[:2])
        normed = any(isinstance(part, nn.BatchNorm2d) for part in self.module.modules())
        self.policy = "reset" if normed else None

    def path(self, a: Any, b: Any) -> wb.Barrier:
        """The loss on the training images between two networks."""
        return wb.barrier(self.train, a, b, points=POINTS, batch_norm=self.policy)

    def middle(self, a: Any, b: Any) -> float:
        """Accuracy half way, with statistics of the training images where there is batch norm."""
        half = {name: torch.lerp(t, b[name], 0.5) if t.is_floating_point() else t for name, t in a.items()}
        if self.policy:
            half |= reset_statistics(self.module, self.train.data, weights=half, device="cpu")
        return self.test(half)["accuracy"]


def spectra(weights: Mapping[str, Tensor]) -> list[Tensor]:
    return [torch.linalg.svdvals(t.flatten(1).double()) for t in weights.values() if t.ndim > 1]


def pair(bench: Bench, name: str, seeds: Sequence[int], a: Any, b: Any) -> tuple[list[Any], list[Any]]:
    """A row per method, and the alignment's rows."""
    rows, aligned = [], []
    before = spectra(b)
    own = torch.cat(spectra(a))
    ends = (bench.test(a)["accuracy"] + bench.test(b)["accuracy"]) / 2
    direct = bench.path(a, b)
    whole = None
    for method in ("none", "weights", "activations"):
        if method == "none":
            moved, distance, reduction, found = b, float("nan"), 0.0, direct
        else:
            matching = wb.match(bench.groups, a, b, method=method, evaluator=bench.train, gammas=GAMMAS, device="cpu")
            moved = dict(matching.apply(b))
            reduction = matching.reduction()
            found = bench.path(a, moved)
            layers = matching.tables["layers"]
            distance = sum(value**2 for value in layers["distance_after"]) ** 0.5
            whole = sum(value**2 for value in layers["distance_before"]) ** 0.5
            for gamma in GAMMAS:
                values = {"before": matching.alignment(gamma, before=True), "after": matching.alignment(gamma)}
                aligned.append({"network": name, "seed_a": seeds[0], "method": method, "gamma": gamma, **values})
        after = spectra(moved)
        path = direct.tables["path"]
        share = 1 - reduction
        rows.append(
            {
                "network": name,
                "seed_a": seeds[0],
                "seed_b": seeds[1],
                "method": method,
                "barrier": found.barrier,
                "loss_a": found.loss_a,
                "loss_b": found.loss_b,
                "middle": bench.middle(a, moved),
                "ends": ends,
                "distance": distance,
                "reduction": reduction,
                "singular_values": max(float(((x - y).abs() / x[0]).max()) for x, y in zip(before, after, strict=True)),
                "spectra": float((own - torch.cat(before)).norm() / own.norm()),
                "shortened": max(loss for t, loss in zip(path["t"], path["loss"], strict=True) if t <= share),
                "highest": max(found.tables["path"]["loss"]),
            }
        )
    rows[0]["distance"] = whole if whole is not None else float("nan")
    return rows, aligned


def three(bench: Bench, seeds: Sequence[int], models: Sequence[Any]) -> list[dict[str, Any]]:
    """Barriers of the three pairs under three ways of matching."""
    a, *others = models
    singly = [a, *(dict(wb.match(bench.groups, a, b, gammas=(), device="cpu").apply(b)) for b in others)]
    merged = wb.match_many(bench.groups, models, gammas=(), device="cpu")
    together = [a, *(dict(merged.apply(b, model)) for model, b in enumerate(others, 1))]
    rows = []
    for method, found in (("none", models), ("weights", singly), ("merge-many", together)):
        for label, (i, j) in {"AB": (0, 1), "AC": (0, 2), "BC": (1, 2)}.items():
            value = bench.path(found[i], found[j]).barrier
            rows.append({"seeds": " ".join(map(str, seeds)), "method": method, "pair": label, "barrier": value})
    return rows


def study(seeds: Sequence[int], models: Path | None) -> ConnectivityStudy:
    begin = time.perf_counter()
    rows: dict[str, list[Any]] = {"pairs": [], "alignment": [], "three": []}
    for name, trained in networks(seeds, models).items():
        bench = Bench(name)
        for first, second in zip(seeds[::2], seeds[1::2], strict=True):
            found, aligned = pair(bench, name, (first, second), trained[first], trained[second])
            rows["pairs"] += found
            rows["alignment"] += aligned
        for start in range(0, len(seeds) - 2, 3) if name == MANY else ():
            own = seeds[start : start + 3]
            rows["three"] += three(bench, own, [trained[seed] for seed in own])
        print(name, f"{time.perf_counter() - begin:.0f} s", flush=True)
    meta = {
        "source": "connectivity-digits",
        "function": "data/connectivity_study.py",
        "recipe": build.RECIPES["digits-mlp512"].card()["words"],
        "seeds": list(seeds),
        "points": POINTS,
        "versions": versions(),
        "seconds": time.perf_counter() - begin,
        "command": "python data/connectivity_study.py",
    }
    tables = {name: ConnectivityStudy.columns(name, own) for name, own in rows.items()}
    return ConnectivityStudy(tables=tables, meta=meta)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the study of weight matching and saves it.")
    parser.add_argument("--quick", action="store_true", help="four networks of each kind, to see that it runs")
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep the trained networks here")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = study(SEEDS[:4] if arguments.quick else SEEDS, arguments.models)
    print(found.frame().to_string())
    found.save(arguments.out / "connectivity-digits")


if __name__ == "__main__":
    main()

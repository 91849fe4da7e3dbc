"""What α is used for, tried on scikit-learn's digits against tuned baselines at equal budget; writes data/results.

`python data/studies.py [--quick] [--only STUDY] [--out DIR]`. Two studies on the same small networks:

* tempbalance-digits: SGD with a cosine schedule, with and without `TempBalanceScheduler`. Every method's base rate is
  tuned on validation images over one grid with one number of trials; then fresh seeds are trained at the best rate and
  compared on test images, seed by seed (same initialisation, same order of batches).
* alphapruning-digits: the baseline networks of the first study, pruned without fine-tuning by AlphaPruning and by
  uniform and global-magnitude allocations and ramps over depth, network by network; all layers, or the inner ones
  alone as in the paper, which keeps embeddings and heads whole. What is tuned is tuned on each network's validation
  images, AlphaPruning and the baseline with six trials each.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import workbench as wb
from workbench.results import Column, Result, versions
from workbench.spectra.alphapruning import pruned_counts

SPLIT = {"train": 500, "validation": 300, "test": 997}  # few to train on, many to tell methods apart by
EPOCHS, BATCH, MOMENTUM, DECAY = 40, 50, 0.9, 5e-4
RATES = (0.00625, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
TUNING_SEEDS, SEEDS = tuple(range(100, 104)), tuple(range(16))
DENSITIES = (0.5, 0.3, 0.2, 0.1)
EPSILONS = (0.1, 0.2, 0.3)
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Study(Result):
    """Paired comparisons of methods over seeds, with every run and every trial behind them."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "comparisons": {
            "network": Column("the architecture", str, ""),
            "pruned": Column("which weight matrices: none, all, or inner (without the first and last)", str, ""),
            "density": Column("share of the elements kept", low=0, high=1),
            "method": Column("the method that is tried", str, ""),
            "baseline": Column("what it is compared with", str, ""),
            "pairs": Column("seeds, a pair each", int, low=2),
            "difference": Column("mean test accuracy of the method minus the baseline's", low=-1, high=1),
            "deviation": Column("standard deviation of the paired differences", low=0),
            "low": Column("lower end of the 95 % t interval of the difference"),
            "high": Column("upper end of it"),
            "conclusion": Column("better or worse where the interval leaves out 0, else no difference shown", str, ""),
        },
        "runs": {
            "network": Column("the architecture", str, ""),
            "pruned": Column("which weight matrices: none, all, or inner (without the first and last)", str, ""),
            "density": Column("share of the elements kept", low=0, high=1),
            "method": Column("the method", str, ""),
            "setting": Column("what was tuned", str, ""),
            "seed": Column("decides initialisation and order of batches", int, low=0),
            "validation": Column("accuracy on the validation images", low=0, high=1),
            "test": Column("accuracy on the test images", low=0, high=1),
        },
        "trials": {
            "network": Column("the architecture", str, ""),
            "pruned": Column("which weight matrices: none, all, or inner (without the first and last)", str, ""),
            "method": Column("the method", str, ""),
            "setting": Column("what was tried", str, ""),
            "trials": Column("runs behind the mean", int, low=1),
            "validation": Column("mean accuracy on the validation images", low=0, high=1),
            "chosen": Column("whether it is the method's best", bool, ""),
        },
    }
    NEXT: ClassVar[str] = ".frame(), .frame('runs'), .frame('trials')"


class Part(NamedTuple):
    """Images and labels."""

    x: Tensor
    y: Tensor


def parts() -> dict[str, Part]:
    """The digits in [0, 1], split once and for all, stratified by label."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)
    rest, test = train_test_split(range(len(y)), test_size=SPLIT["test"], random_state=0, stratify=labels)
    train, validation = train_test_split(
        rest, test_size=SPLIT["validation"], random_state=0, stratify=[labels[row] for row in rest]
    )
    return {
        "train": Part(x[train], y[train]),
        "validation": Part(x[validation], y[validation]),
        "test": Part(x[test], y[test]),
    }


def mlp() -> nn.Sequential:
    """64, five hidden layers of 128 and 10, ReLU, He's initialisation (with torch's own few rates train it at all)."""
    widths = (64, 128, 128, 128, 128, 128)
    hidden = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    for part in hidden[::2]:
        nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        nn.init.zeros_(part.bias)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def cnn() -> nn.Sequential:
    """Four 3 × 3 convolutions of 16, 16, 32 and 32 channels with batch norm, pooled, and a linear layer."""

    def block(inside: int, out: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    convolutions = [*block(1, 16, 1), *block(16, 16, 2), *block(16, 32, 1), *block(32, 32, 2)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"mlp": mlp, "cnn": cnn}
BASELINE = "sgd"
ENDS = "tempbalance, released settings"
TRAINING: dict[str, dict[str, Any] | None] = {
    BASELINE: None,
    "tempbalance": {},
    ENDS: {"estimator": "spectrum"},  # and without the first and last layer, see `trained`
}


def matrices(module: nn.Module, which: str) -> list[str]:
    """The layer ids of all weight matrices, or of the inner ones."""
    layers = wb.layers(module).frame().query("verdict == 'analysed'")["layer"].tolist()
    return layers[1:-1] if which == "inner" else layers


def trained(network: str, method: str, rate: float, seed: int, data: Mapping[str, Part]) -> nn.Module:
    """One run; its seed alone decides initialisation and order, so that methods are paired."""
    options, train, order = TRAINING[method], data["train"], torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = NETWORKS[network]().train()
    optimizer = torch.optim.SGD(module.parameters(), rate, momentum=MOMENTUM, weight_decay=DECAY)
    balance = None
    if options is not None:
        layers = matrices(module, "inner" if method == ENDS else "all")
        balance = wb.TempBalanceScheduler(optimizer, module, layers=layers, **options)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train.y), generator=order).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(module(train.x[rows]), train.y[rows]).backward()
            optimizer.step()
        cosine.step()
        if balance is not None:
            balance.step()
    return module.eval()


def accuracy(module: nn.Module, part: Part) -> float:
    with torch.no_grad():
        right = module(part.x).argmax(1) == part.y
    return int(right.sum()) / len(right)


def scores(module: nn.Module, data: Mapping[str, Part]) -> dict[str, float]:
    return {name: accuracy(module, data[name]) for name in ("validation", "test")}


def comparison(runs: Iterable[Mapping[str, Any]], method: str, baseline: str) -> dict[str, Any]:
    """The paired difference of two methods over the seeds that both have, with its t interval."""
    from scipy.stats import t

    rows = list(runs)
    found = {name: {row["seed"]: row["test"] for row in rows if row["method"] == name} for name in (method, baseline)}
    differences = [found[method][seed] - found[baseline][seed] for seed in sorted(found[baseline])]
    mean, deviation, count = statistics.fmean(differences), statistics.stdev(differences), len(differences)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    conclusion = "better" if mean > half else "worse" if -mean > half else "no difference shown"
    cells = {"difference": mean, "deviation": deviation, "low": mean - half, "high": mean + half}
    return {"method": method, "baseline": baseline, "pairs": count} | cells | {"conclusion": conclusion}


def best(means: Mapping[Any, float]) -> Any:
    """The setting of the highest mean, the first of equal ones."""
    return max(means, key=lambda setting: means[setting])


def tempbalance_study(data: Mapping[str, Part], seeds: Sequence[int], tuning: Sequence[int]) -> Study:
    """The first study."""
    begin = time.perf_counter()
    runs: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    comparisons: list[dict[str, Any]] = []
    for network in NETWORKS:
        mine: list[dict[str, Any]] = []
        for method in TRAINING:
            means = {
                rate: statistics.fmean(
                    accuracy(trained(network, method, rate, seed, data), data["validation"]) for seed in tuning
                )
                for rate in RATES
            }
            chosen = best(means)
            where = {"network": network, "pruned": "none"}
            for rate, mean in means.items():
                cells = where | {"method": method, "setting": f"rate {rate:g}"}
                trials.append(cells | {"trials": len(tuning), "validation": mean, "chosen": rate == chosen})
            for seed in seeds:
                cells = where | {"density": 1.0, "method": method, "setting": f"rate {chosen:g}", "seed": seed}
                mine.append(cells | scores(trained(network, method, chosen, seed, data), data))
            print(network, method, f"rate {chosen:g}", f"{time.perf_counter() - begin:.0f} s", flush=True)
        runs += mine
        for method in TRAINING:
            if method != BASELINE:
                comparisons.append(where | {"density": 1.0} | comparison(mine, method, BASELINE))
    recipe = (
        f"SGD, momentum {MOMENTUM:g}, weight decay {DECAY:g}, batch {BATCH}, {EPOCHS} epochs, cosine by epoch; base "
        f"rate of each method from {list(RATES)} by mean validation accuracy over the seeds {list(tuning)}; test "
        f"accuracy on the seeds {list(seeds)}"
    )
    return study("tempbalance-digits", recipe, comparisons, runs, trials, begin)


State = dict[str, Tensor]


def global_magnitude(module: nn.Module, density: float, layers: list[str]) -> State:
    """The state dict with one threshold for all chosen weight matrices."""
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    names = [f"{layer}.weight" for layer in layers]
    sizes = torch.cat([state[name].abs().flatten() for name in names])
    threshold = sizes.kthvalue(len(sizes) - round(density * len(sizes))).values
    for name in names:
        state[name][state[name].abs() <= threshold] = 0
    return state


def ramp(slope: float) -> Callable[[nn.Module, float, list[str]], State]:
    """AlphaPruning's allocation with depth in the place of α: r from 1 − slope to 1 + slope; uniform for 0."""

    def pruned(module: nn.Module, density: float, layers: list[str]) -> State:
        found = wb.alphapruning(module, density=density, by="layer", estimator="spectrum", layers=layers)
        table = dict(found.tables["layers"])
        last = len(layers) - 1
        ratios = [1 - slope + 2 * slope * place / last for place in range(last + 1)]
        counts = pruned_counts(table["elements"], ratios, density)
        table["kept"] = [size - count for size, count in zip(table["elements"], counts, strict=True)]
        return dict(wb.AlphaPruning(tables={"layers": table}, meta=found.meta).apply(module))

    return pruned


def by_alpha(epsilon: float, estimator: Any) -> Callable[[nn.Module, float, list[str]], State]:
    def pruned(module: nn.Module, density: float, layers: list[str]) -> State:
        found = wb.alphapruning(
            module, density=density, epsilon=epsilon, by="layer", estimator=estimator, layers=layers
        )
        return dict(found.apply(module))

    return pruned


# method → what it may try on the validation images; one entry is nothing to tune
PRUNING: dict[str, dict[str, Callable[[nn.Module, float, list[str]], State]]] = {
    "uniform": {"": ramp(0.0)},
    "global magnitude": {"": global_magnitude},
    "tuned baseline": {
        "uniform": ramp(0.0),
        "global magnitude": global_magnitude,
        **{f"depth ramp {slope:g}": ramp(slope) for slope in (-0.2, -0.1, 0.1, 0.2)},
    },
    "alphapruning": {"epsilon 0.2": by_alpha(0.2, "farms")},
    "alphapruning, tuned": {
        f"epsilon {epsilon:g}, {estimator}": by_alpha(epsilon, estimator)
        for estimator in ("farms", "spectrum")
        for epsilon in EPSILONS
    },
}
PAIRS = [
    ("alphapruning", "uniform"),
    ("alphapruning", "global magnitude"),
    ("alphapruning, tuned", "tuned baseline"),
]


def alphapruning_study(data: Mapping[str, Part], first: Result) -> Study:
    """The second study, on the networks that the first study's baseline trained, which are trained again."""
    begin = time.perf_counter()
    runs: list[dict[str, Any]] = []
    trials: dict[tuple[str, str, str, str], list[float]] = {}
    chosen: dict[tuple[str, str, str], list[str]] = {}
    comparisons: list[dict[str, Any]] = []
    baselines = first.frame("runs").query("method == @BASELINE")
    for network, rows in baselines.groupby("network", sort=False):
        rates = [float(setting.removeprefix("rate ")) for setting in rows["setting"]]
        modules = {
            seed: trained(network, BASELINE, rate, seed, data) for seed, rate in zip(rows["seed"], rates, strict=True)
        }
        for which, density in itertools.product(("all", "inner"), DENSITIES):
            mine: list[dict[str, Any]] = []
            where = {"network": network, "pruned": which}
            for (seed, module), (method, settings) in itertools.product(modules.items(), PRUNING.items()):
                found = {}
                for setting, pruned in settings.items():
                    other = NETWORKS[network]().eval()
                    other.load_state_dict(pruned(module, density, matrices(module, which)))
                    found[setting] = scores(other, data)
                    trials.setdefault((network, which, method, setting), []).append(found[setting]["validation"])
                setting = best({name: score["validation"] for name, score in found.items()})
                chosen.setdefault((network, which, method), []).append(setting)
                cells = where | {"density": density, "method": method, "setting": setting, "seed": seed}
                mine.append(cells | found[setting])
            runs += mine
            comparisons += [where | {"density": density} | comparison(mine, a, b) for a, b in PAIRS]
            print(network, which, density, f"{time.perf_counter() - begin:.0f} s", flush=True)
    means = [
        {
            "network": network,
            "pruned": which,
            "method": method,
            "setting": setting,
            "trials": len(values),
            "validation": statistics.fmean(values),
            "chosen": setting == statistics.mode(chosen[network, which, method]),
        }
        for (network, which, method, setting), values in trials.items()
    ]
    recipe = (
        "the SGD networks of tempbalance-digits, their weight matrices pruned once by magnitude, no fine-tuning; tuned "
        "methods choose for each network and density among six settings by validation accuracy (`trials` has the means "
        "over networks and densities, and `chosen` the setting chosen most often); AlphaPruning by layer, median xmin"
    )
    return study("alphapruning-digits", recipe, comparisons, runs, means, begin)


def study(name: str, recipe: str, comparisons: Any, runs: Any, trials: Any, begin: float) -> Study:
    tables = {"comparisons": comparisons, "runs": runs, "trials": trials}
    meta = {
        "source": name,
        "function": "data/studies.py",
        "recipe": f"scikit-learn's digits / 16, stratified split {SPLIT}; {recipe}; float32, one thread",
        "networks": {name: network.__doc__ for name, network in NETWORKS.items()},
        "interval": f"t, {CONFIDENCE:.0%}, of paired differences; not corrected for the number of comparisons",
        "versions": versions(),
        "seconds": time.perf_counter() - begin,
        "command": "python data/studies.py",
    }
    return Study(tables={key: Study.columns(key, rows) for key, rows in tables.items()}, meta=meta)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs both studies and saves them.")
    parser.add_argument("--quick", action="store_true", help="two seeds and one tuning seed, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(__file__).parent / "results")
    parser.add_argument("--only", choices=("tempbalance", "alphapruning"), help="the second needs the first's result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data, path = parts(), arguments.out / "tempbalance-digits"
    if arguments.only != "alphapruning":
        quick = arguments.quick
        found = tempbalance_study(data, SEEDS[:2] if quick else SEEDS, TUNING_SEEDS[:1] if quick else TUNING_SEEDS)
        print(found.frame().to_string())
        found.save(path)
    if arguments.only != "tempbalance":
        found = alphapruning_study(data, wb.open_result(path))
        print(found.frame().to_string())
        found.save(arguments.out / "alphapruning-digits")


if __name__ == "__main__":
    main()

"""What robust weight signatures do on corrupted digits: the paper's claims, measured on families of networks.

`python data/signatures_study.py [--quick] [--out DIR]` trains five families (an ancestor of its own each, clean and
eight corruptions, two data seeds; the same with batch norm; and halves of the classes), takes their signatures and
writes data/results/signatures. About ten minutes on one core.
"""

import argparse
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import corruption_family
import torch
from architectures import SmallCNN
from corruptions import CORRUPTIONS, FAMILIES
from splits import corrupted
from torch import Tensor, nn

import workbench as wb
from workbench.results import Column, Result, versions
from workbench.seeds import generator

# ancestor → two data seeds; those of 0 and the first of 2 are shipped
SEEDS = {0: (0, 1), 2: (2, 12), 3: (3, 13), 4: (4, 14), 5: (5, 15)}
SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
BITS = (2, 3, 4, 8)
LAYERS = ("conv1", "conv2", "conv3", "conv4", "fc1", "fc2")
SHALLOW = ("conv1", "conv2")
HALVES = (range(5), range(5, 10))
CONFIDENCE = 0.95
SETTING = Column("scale, layers, bits, policy: what was done", str, "")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SignaturesStudy(Result):
    """Claims with their verdicts over families, and every measurement behind them."""

    COLUMNS: ClassVar[Mapping[str, Mapping[str, Column]]] = {
        "claims": {
            "claim": Column("what is claimed", str, ""),
            "measure": Column("what must be larger than `least` for it to hold", str, ""),
            "families": Column("ancestors, a value each", int, low=2),
            "mean": Column("mean over the families"),
            "low": Column("lower end of its 95 % t interval"),
            "high": Column("upper end of it"),
            "least": Column("the claim's bound"),
            "verdict": Column("yes or no where the interval leaves the bound out, else not shown", str, ""),
        },
        "runs": {
            "family": Column("seed of the ancestor", int, "", low=0),
            "corruption": Column("its name; empty for what is of a family", str, ""),
            "measure": Column("what was measured", str, ""),
            "setting": SETTING,
            "value": Column("accuracy on the 719 test images, a cosine, a norm or a ratio"),
        },
    }
    NEXT: ClassVar[str] = ".frame(), .means(measure), .frame('runs')"

    def means(self, measure: str) -> Any:
        """Setting → mean over the corruptions and families, as a pandas Series in the order of the runs."""
        rows = self.frame("runs").query("measure == @measure")
        return rows.groupby("setting", sort=False)["value"].mean()


class Family:
    """An ancestor, its clean descendant and one for each corruption, and what is measured on them."""

    def __init__(self, ancestor: int, seed: int, *, norm: bool = False, classes: Sequence[int] = range(10)) -> None:
        def tuned(name: str | None) -> dict[str, Tensor]:
            options: dict[str, Any] = {"norm": norm, "ancestor_seed": ancestor, "classes": classes}
            return corruption_family.descendant(seed, name, **options).state_dict()

        self.seed, self.module = ancestor, SmallCNN(norm).eval()
        self.ancestor = corruption_family.ancestor(ancestor, norm=norm).state_dict()
        self.clean, self.robust = tuned(None), {name: tuned(name) for name in CORRUPTIONS}
        self.signatures = {
            name: wb.signature(ancestor=self.ancestor, clean=self.clean, robust=one)
            for name, one in self.robust.items()
        }
        self.data = {name: corrupted(name) for name in (None, *CORRUPTIONS)}
        self.evaluators = {
            name: evaluator(self.module, data.test_x, data.test_y, classes) for name, data in self.data.items()
        }

    def accuracy(self, name: str | None, weights: Mapping[str, Tensor]) -> float:
        """On the test images of a corruption; None for clean ones."""
        return self.evaluators[name](weights)["accuracy"]

    def row(self, corruption: str, measure: str, setting: str, value: float) -> dict[str, Any]:
        """A measurement of this family, as the table `runs` has it."""
        return {
            "family": self.seed,
            "corruption": corruption,
            "measure": measure,
            "setting": setting,
            "value": float(value),
        }


def evaluator(module: nn.Module, x: Tensor, y: Tensor, classes: Sequence[int]) -> wb.Evaluator:
    mine = torch.isin(y, torch.tensor(list(classes)))
    return wb.evaluator(module, [(x[mine], y[mine])], "cross_entropy", device="cpu")


def plain(delta: Mapping[str, Tensor]) -> wb.Signature:
    """Differences as a signature of their own: c = 0 leaves t."""
    zero = {name: torch.zeros_like(tensor) for name, tensor in delta.items()}
    return wb.signature(ancestor=zero, clean=zero, robust=delta)


def shuffled(signature: wb.Signature, seed: int) -> wb.Signature:
    """Every tensor's elements in a random order: the control that has the same sizes in other places."""
    return plain(
        {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator(seed, name))].reshape(
                tensor.shape
            )
            for name, tensor in signature.items()
        }
    )


def patched(family: Family) -> Iterator[dict[str, Any]]:
    """Accuracies of the clean network with signatures on it."""
    for name, signature in family.signatures.items():

        def accuracy(weights: Mapping[str, Tensor], on: str | None = name) -> float:
            return family.accuracy(on, weights)

        def row(measure: str, setting: str, value: float, name: str = name) -> dict[str, Any]:
            return family.row(name, measure, setting, value)

        clean = family.clean
        yield row("accuracy", "robust network", accuracy(family.robust[name]))
        yield row("scaling", "0", accuracy(clean))
        for scale in SCALES:
            yield row("scaling", f"{scale:g}", accuracy(signature.apply(clean, scale=scale)))
        for setting, one in {
            "clean network": clean,
            "signature": signature.apply(clean),
            "signature, conv1 and conv2": signature.apply(clean, layers=SHALLOW),
            "shuffled signature": shuffled(signature, family.seed).apply(clean),
        }.items():
            yield row("accuracy", setting, accuracy(one))
            yield row("accuracy on clean images", setting, accuracy(one, None))
        for bits in BITS:
            with tempfile.TemporaryDirectory() as folder:
                stored = wb.Signature.load(signature.save(f"{folder}/signature.safetensors", bits=bits))
                yield row("quantisation", f"{bits} bits", accuracy(stored.apply(clean)))


def composed(family: Family) -> Iterator[dict[str, Any]]:
    """Means of two and of all eight, and the sums without 1/K, on each of their corruptions."""
    groups = [*itertools.combinations(CORRUPTIONS, 2), tuple(CORRUPTIONS)]
    found: dict[tuple[str, str], list[float]] = {}
    for group in groups:
        mean = wb.Signature.mean([family.signatures[name] for name in group])
        for label, scale in (("mean", 1.0), ("sum", float(len(group)))):
            weights = mean.apply(family.clean, scale=scale)
            for name in group:
                value = family.accuracy(name, weights)
                found.setdefault((name, f"{label} of {len(group)}"), []).append(value)
    for (name, setting), values in found.items():
        yield family.row(name, "composition", setting, statistics.fmean(values))


def alike(family: Family, again: Family, other: Family) -> Iterator[dict[str, Any]]:
    """Cosines and retrieval within a family, across data seeds and across initialisations; the raw differences too."""
    raw = {
        name: {key: one[key] - family.ancestor[key] for key in family.ancestor} for name, one in family.robust.items()
    }
    for label, found in {
        "types": wb.similarity(family.signatures, types=FAMILIES),
        "types, raw differences": wb.similarity(raw, types=FAMILIES),
        "data seeds": wb.similarity(family.signatures, again.signatures),
        "initialisations": wb.similarity(family.signatures, other.signatures),
    }.items():
        words = found.frame()["verdict"].tolist()
        share = words.count("same type") / (words.count("same type") + words.count("other type"))
        yield family.row("", "cosine", f"{label}, same", found.within)
        yield family.row("", "cosine", f"{label}, other", found.between)
        yield family.row("", "cosine", f"{label}, nearest of the same type", share)
        if label == "initialisations":
            yield family.row("", "cosine", f"{label}, largest of all", float(found.matrix().abs().to_numpy().max()))


def changed(family: Family, again: Family) -> Iterator[dict[str, Any]]:
    """‖W_robust − W_clean‖/‖W_clean‖ of every layer, and the same of two clean networks: the floor."""
    for layer in LAYERS:
        own = family.clean[f"{layer}.weight"]
        floor = float((again.clean[f"{layer}.weight"] - own).norm() / own.norm())
        change = statistics.fmean(
            float((one[f"{layer}.weight"] - own).norm() / own.norm()) for one in family.robust.values()
        )
        yield family.row("", "relative change", layer, change)
        yield family.row("", "change over the floor", layer, change / floor)


def transferred(family: Family) -> Iterator[dict[str, Any]]:
    """Signatures of the digits 0 to 4 on a network of the digits 5 to 9, from one ancestor of all digits."""
    first, second = (Family(family.seed, family.seed, classes=half) for half in HALVES)
    found = wb.similarity(first.signatures, second.signatures, layers="conv*")
    yield family.row("", "transfer", "cosine of convolutions, same", found.within)
    yield family.row("", "transfer", "cosine of convolutions, other", found.between)
    for name in CORRUPTIONS:
        for setting, weights in {
            "clean network of its half": second.clean,
            "with the other half's signature": first.signatures[name].apply(second.clean, layers="conv*"),
            "with its own signature": second.signatures[name].apply(second.clean, layers="conv*"),
        }.items():
            yield family.row(name, "transfer", setting, second.accuracy(name, weights))


def normalised(family: Family) -> Iterator[dict[str, Any]]:
    """Every batch-norm policy with the signature and without; statistics are re-estimated on training images."""
    for name, signature in family.signatures.items():
        images = list(family.data[name].train_x.split(128))
        yield family.row(name, "batch norm", "robust network", family.accuracy(name, family.robust[name]))
        for policy in ("untouched", "copied", "re-estimated"):
            options: dict[str, Any] = {"batch_norm": policy}
            if policy == "re-estimated":
                options |= {"data": images, "module": family.module, "device": "cpu"}
            for setting, scale in (("without", 0.0), ("with", 1.0)):
                weights = signature.apply(family.clean, scale=scale, **options)
                yield family.row(name, "batch norm", f"{policy}, {setting}", family.accuracy(name, weights))


def claimed(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts; each measure is a number per family."""
    families = sorted({row["family"] for row in runs})

    def mean(measure: str, *settings: str) -> list[float]:
        wanted = [row for row in runs if row["measure"] == measure and row["setting"] in settings]
        return [statistics.fmean(row["value"] for row in wanted if row["family"] == one) for one in families]

    def less(first: list[float], second: list[float]) -> list[float]:
        return [a - b for a, b in zip(first, second, strict=True)]

    def gain(measure: str, setting: str, base: str) -> list[float]:
        return less(mean(measure, setting), mean(measure, base))

    def share(setting: str) -> list[float]:
        own = gain("accuracy", "signature", "clean network")
        kept = less(mean("composition", setting), mean("accuracy", "clean network"))
        return [a / b for a, b in zip(kept, own, strict=True)]

    shallow, deep = LAYERS[:3], LAYERS[3:]
    rising = [
        min(b - a for a, b in itertools.pairwise(values))
        for values in zip(*(mean("scaling", f"{scale:g}") for scale in (0, *SCALES[:4])), strict=True)
    ]
    rows = [
        ("shallow layers differ most", "relative change: first three layers minus last three", 0.0)
        + (less(mean("relative change", *shallow), mean("relative change", *deep)),),
        ("shallow layers differ most", "the same over the seed floor", 0.0)
        + (less(mean("change over the floor", *shallow), mean("change over the floor", *deep)),),
        ("signatures tell types apart", "cosine within types minus between", 0.0)
        + (gain("cosine", "types, same", "types, other"),),
        ("signatures tell types apart", "share whose nearest is of its type", 6 / 7 - 1e-9)
        + (mean("cosine", "types, nearest of the same type"),),
        ("signatures tell types apart", "the same of raw differences", 6 / 7 - 1e-9)
        + (mean("cosine", "types, raw differences, nearest of the same type"),),
        ("consistent across data seeds", "cosine of the same corruption minus others", 0.0)
        + (gain("cosine", "data seeds, same", "data seeds, other"),),
        ("consistent across data seeds", "share retrieved", 7 / 8 - 1e-9)
        + (mean("cosine", "data seeds, nearest of the same type"),),
        ("consistent across initialisations", "cosine of the same corruption", 0.1)
        + (mean("cosine", "initialisations, same"),),
        ("transfers to other classes", "cosine of convolutions: same corruption minus others", 0.0)
        + (gain("transfer", "cosine of convolutions, same", "cosine of convolutions, other"),),
        ("transfers to other classes", "accuracy gained by the other half's signature", 0.0)
        + (gain("transfer", "with the other half's signature", "clean network of its half"),),
        ("patching makes robust", "accuracy gained", 0.15) + (gain("accuracy", "signature", "clean network"),),
        ("patching makes robust", "accuracy above a shuffled signature's", 0.2)
        + (gain("accuracy", "signature", "shuffled signature"),),
        ("shallow layers are enough", "accuracy with conv1 and conv2 minus with all", -0.05)
        + (gain("accuracy", "signature, conv1 and conv2", "signature"),),
        ("clean accuracy stays", "accuracy on clean images: patched minus clean", -0.05)
        + (gain("accuracy on clean images", "signature", "clean network"),),
        ("scaling is monotone", "smallest step of the accuracy from α = 0 to 1 by quarters", 0.0) + (rising,),
        ("more is not better", "accuracy at α = 1 minus at 1.5", 0.0) + (gain("scaling", "1", "1.5"),),
        ("signatures compose", "accuracy gained by the mean of two", 0.0)
        + (less(mean("composition", "mean of 2"), mean("accuracy", "clean network")),),
        ("signatures compose", "share of a signature's own gain that the mean of two keeps", 1.0)
        + (share("mean of 2"),),
        ("composition needs 1/K", "accuracy of the mean of two minus of the sum", 0.0)
        + (gain("composition", "mean of 2", "sum of 2"),),
        ("composition needs 1/K", "the same of all eight", 0.0) + (gain("composition", "mean of 8", "sum of 8"),),
        *(
            ("few bits are enough", f"accuracy with {bits} bits minus exact", -0.015)
            + (less(mean("quantisation", f"{bits} bits"), mean("accuracy", "signature")),)
            for bits in BITS
        ),
        ("batch norm: a control is needed", "accuracy gained by re-estimation alone", 0.0)
        + (gain("batch norm", "re-estimated, without", "untouched, without"),),
        ("batch norm: the signature adds to it", "accuracy gained beyond re-estimation", 0.0)
        + (gain("batch norm", "re-estimated, with", "re-estimated, without"),),
        ("batch norm: statistics may stay untouched", "accuracy gained", 0.15)
        + (gain("batch norm", "untouched, with", "untouched, without"),),
    ]
    return [verdict(claim, measure, least, values) for claim, measure, least, values in rows]


def verdict(claim: str, measure: str, least: float, values: Sequence[float]) -> dict[str, Any]:
    """A claim's mean with its t interval, against its bound."""
    from scipy.stats import t

    mean, count = statistics.fmean(values), len(values)
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    word = "yes" if mean - half > least else "no" if mean + half < least else "not shown"
    ends = {"mean": mean, "low": mean - half, "high": mean + half, "least": least}
    return {"claim": claim, "measure": measure, "families": count} | ends | {"verdict": word}


def study(seeds: Mapping[int, tuple[int, int]]) -> SignaturesStudy:
    begin = time.perf_counter()
    pairs = {ancestor: [Family(ancestor, seed) for seed in own] for ancestor, own in seeds.items()}
    runs: list[dict[str, Any]] = []
    order = list(seeds)
    for ancestor, (family, again) in pairs.items():
        other = pairs[order[(order.index(ancestor) + 1) % len(order)]][0]
        runs += patched(family)
        runs += composed(family)
        runs += alike(family, again, other)
        runs += changed(family, again)
        runs += transferred(family)
        runs += normalised(Family(ancestor, ancestor, norm=True))
        print(ancestor, f"{time.perf_counter() - begin:.0f} s", flush=True)
    first = next(iter(pairs.values()))[0]
    with tempfile.TemporaryDirectory() as folder:
        signature = first.signatures["gauss_noise"]
        sizes = {"model": wb.save(first.clean, f"{folder}/model.safetensors").stat().st_size}
        for label, own in (("all", signature), ("conv1 to conv3", signature.only("conv[123]"))):
            for bits in (None, *BITS):
                path = own.save(f"{folder}/signature.safetensors", bits=bits)
                head = 8 + int.from_bytes(path.read_bytes()[:8], "little")
                told = f"{label}, {bits or 'all'} bits"
                sizes |= {told: path.stat().st_size - head, f"{told}, header": head}
    meta = {
        "source": "signatures-digits",
        "function": "data/signatures_study.py",
        "recipe": corruption_family.TUNING_METHOD,
        "seeds": {str(ancestor): list(own) for ancestor, own in seeds.items()},
        "bytes": sizes,
        "interval": f"t, {CONFIDENCE:.0%}, over families; not corrected for the number of claims",
        "versions": versions(),
        "seconds": time.perf_counter() - begin,
        "command": "python data/signatures_study.py",
    }
    tables = {"claims": claimed(runs), "runs": runs}
    return SignaturesStudy(
        tables={name: SignaturesStudy.columns(name, rows) for name, rows in tables.items()}, meta=meta
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the claims about robust weight signatures and saves them.")
    parser.add_argument("--quick", action="store_true", help="two families, to see that it runs")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = study(dict(list(SEEDS.items())[:2]) if arguments.quick else SEEDS)
    print(found.frame().to_string())
    found.save(arguments.out / "signatures")


if __name__ == "__main__":
    main()

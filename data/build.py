"""Trains the checkpoints in data/checkpoints and writes a card beside each.

`python data/build.py [--only NAME] [--out DIR]`; a NAME may be a glob. A further checkpoint is one more entry in ALL;
the networks are in architectures.py beside this file, the samples in splits.py.
"""

import argparse
import copy
import fnmatch
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import corruption_family
import modular_addition
import torch
import torch.nn.functional as F
from architectures import CNN, ModularAddition, ResNet, SmallCNN, Transformer, mlp
from corruptions import CORRUPTIONS
from jaxtyping import Int
from safetensors.torch import save
from splits import DIGITS, PAIRS, THIRDS, Split, ancestral, corrupted, digits, pairs
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parent / "checkpoints"


class Score(NamedTuple):
    """Fraction of right answers and mean cross-entropy in nats."""

    accuracy: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a checkpoint besides its seed.

    Attributes:
        name: stem of the files, before `-seed0`.
        architecture: the module in words.
        module: builds the untrained module; may draw from torch's global generator.
        input_shape: one sample as the module takes it: (64,) or (1, 8, 8), say.
        epochs: passes over the training samples, and the length of the cosine where there is one.
        batch: samples in a step.
        learning_rate, weight_decay: the optimiser's (Adam, but for ways of their own); the rate is that of the first
            epoch.
        seeds: a checkpoint each.
        split: gives the samples, from the shape of one.
        data: where they come from, as the card says it.
        training: trains in a way of its own, from the seed; None for `train`.
        method: what that way is, in words.
        least: test accuracy below which a checkpoint is not shipped.
    """

    name: str
    architecture: str
    module: Callable[[], nn.Module]
    input_shape: tuple[int, ...] = (64,)
    epochs: int = 40
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seeds: tuple[int, ...] = (0, 1)
    split: Callable[[Sequence[int]], Split] = digits
    data: Mapping[str, str] = field(default_factory=lambda: DIGITS)
    training: Callable[[int], nn.Module] | None = None
    method: str = ""
    least: float = 0.96

    def card(self) -> dict[str, Any]:
        """The recipe in words and numbers: every attribute that JSON can hold, but for the seeds."""
        method = self.method or (
            f"cross-entropy on digits / 16; {self.epochs} epochs, batch {self.batch}, shuffled; "
            f"Adam {self.learning_rate:g}, weight decay {self.weight_decay:g}, CosineAnnealingLR stepped by epoch; "
            "the seed decides initialisation and shuffling"
        )
        words = f"{self.architecture}; {method}; float32, on the CPU"
        apart = ("module", "seeds", "split", "data", "training", "method", "least")
        names = [field.name for field in fields(self) if field.name not in apart]
        return {"words": words} | {name: getattr(self, name) for name in names}


def train(recipe: Recipe, seed: int) -> nn.Module:
    """The trained module in eval mode; torch's global generator is as before."""
    data = recipe.split(recipe.input_shape)
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = recipe.module().train()
        optimizer = torch.optim.Adam(module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(data.train_y), generator=order).split(recipe.batch):
                optimizer.zero_grad()
                F.cross_entropy(module(data.train_x[rows]), data.train_y[rows]).backward()
                optimizer.step()
            schedule.step()
    return module.eval()


def evaluate(module: nn.Module, inputs: Tensor, targets: Int[Tensor, " samples"]) -> Score:
    """The score of a copy in float64 and eval mode: a card's numbers then depend on the file, not on the machine."""
    with torch.no_grad():
        outputs = copy.deepcopy(module).eval().double()(inputs.double() if inputs.is_floating_point() else inputs)
        right = int((outputs.argmax(-1) == targets).sum())
    return Score(right / len(targets), F.cross_entropy(outputs, targets).item())


def stored(module: nn.Module, metadata: dict[str, str]) -> bytes:
    """The module as a safetensors file; equal weights give equal bytes.

    safetensors writes the metadata in the order of a randomly seeded hash map, another one in each process.
    """
    file = save(module.state_dict(), metadata)
    end = 8 + int.from_bytes(file[:8], "little")
    text = json.dumps(json.loads(file[8:end]) | {"__metadata__": metadata}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


def write(recipe: Recipe, seed: int, out: Path) -> dict[str, Any]:
    """Trains, writes `NAME-seedN.safetensors` and its card into `out`; returns the card."""
    module = train(recipe, seed) if recipe.training is None else recipe.training(seed)
    data = recipe.split(recipe.input_shape)
    file = stored(module, {"recipe": recipe.name, "seed": str(seed), "architecture": recipe.architecture})
    path = out / f"{recipe.name}-seed{seed}.safetensors"
    card = {
        "file": path.name,
        "sha256": hashlib.sha256(file).hexdigest(),
        "bytes": len(file),
        "recipe": recipe.card(),
        "seed": seed,
        "train": {"samples": len(data.train_y)} | evaluate(module, data.train_x, data.train_y)._asdict(),
        "test": {"samples": len(data.test_y)} | evaluate(module, data.test_x, data.test_y)._asdict(),
        "data": dict(recipe.data),
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "safetensors")},
        "threads": torch.get_num_threads(),
        "command": f"python data/build.py --only {recipe.name}",
    }
    out.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def _corruption_family(norm: bool, first: tuple[int, ...], seeds: tuple[int, ...]) -> list[Recipe]:
    """An ancestor, the network tuned to clean images and one for each corruption; see corruption_family.py."""
    family, stem = corruption_family, "digits-corruptions-bn" if norm else "digits-corruptions"
    ancestor = Recipe(
        name=f"{stem}-ancestor",
        architecture="CNN: 3x3 convolutions of 8, 16, 32 and 32 channels, two max-pools, 128-32-10, ReLU"
        + (", batch norm" if norm else "; no normalisation"),
        module=lambda: SmallCNN(norm),
        input_shape=(1, 8, 8),
        epochs=family.EPOCHS,
        batch=family.BATCH,
        learning_rate=family.RATE,
        weight_decay=family.DECAY,
        seeds=first,
        split=ancestral,
        data=THIRDS,
        training=functools.partial(family.ancestor, norm=norm),
        method=family.METHOD,
        least=0.85,
    )
    clean = replace(
        ancestor,
        name=f"{stem}-clean",
        epochs=family.TUNING_EPOCHS,
        learning_rate=family.TUNING_RATE,
        seeds=seeds,
        split=functools.partial(corrupted, None),
        training=functools.partial(family.descendant, corruption=None, norm=norm),
        method=family.TUNING_METHOD,
        least=0.95,
    )
    robust = [
        replace(
            clean,
            name=f"{stem}-{name}",
            split=functools.partial(corrupted, name),
            data=THIRDS | {"corruption": f"{name}: {corruption.__doc__}"},
            training=functools.partial(family.descendant, corruption=name, norm=norm),
            least=0.7,
        )
        for name, corruption in CORRUPTIONS.items()
    ]
    return [ancestor, clean, *robust]


ALL = [
    Recipe(name="digits-mlp512", architecture="MLP 64-512-512-10, ReLU", module=lambda: mlp(512)),
    Recipe(
        name="digits-cnn32",
        architecture="CNN: two 3x3 convolutions of 32 channels, max-pool, 512-128-10, ReLU",
        module=lambda: CNN(32),
        input_shape=(1, 8, 8),
    ),
    Recipe(
        name="digits-resnet48",
        architecture="ResNet: 3x3 stem, residual blocks of 48 and 96 channels (stride 2), mean pool, batch norm, ReLU",
        module=lambda: ResNet(48),
        input_shape=(1, 8, 8),
    ),
    Recipe(
        name="digits-transformer",
        architecture=(
            "Transformer: 8 rows as tokens, learned positions, 2 pre-norm blocks of width 64, 4 heads, MLP 128, GELU, "
            "mean pool"
        ),
        module=Transformer,
        input_shape=(8, 8),
    ),
    Recipe(
        name="modular-addition",
        architecture="Transformer: tokens a, b, =; one block of width 128, 4 heads, MLP 512, ReLU, no norms",
        module=lambda: ModularAddition(modular_addition.MODULUS),
        input_shape=(3,),
        epochs=modular_addition.STEPS,
        batch=3830,
        weight_decay=1.0,
        seeds=(0,),
        split=pairs,
        data=PAIRS,
        training=modular_addition.train,
        method=modular_addition.METHOD,
    ),
    *_corruption_family(norm=False, first=(0, 2), seeds=(0, 1, 2)),
    *_corruption_family(norm=True, first=(0,), seeds=(0,)),
]
RECIPES = {recipe.name: recipe for recipe in ALL}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the checkpoints and writes their cards.")
    parser.add_argument("--only", metavar="NAME", default="*", help=f"glob of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--out", type=Path, metavar="DIR", default=CHECKPOINTS)
    arguments = parser.parse_args()
    chosen = fnmatch.filter(RECIPES, arguments.only)
    if not chosen:
        parser.error(f"--only {arguments.only}: expected a name or glob of {', '.join(RECIPES)}")
    torch.set_num_threads(1)  # sums are split by thread, so the bits would depend on the number of cores
    for recipe in (RECIPES[name] for name in chosen):
        for seed in recipe.seeds:
            card = write(recipe, seed, arguments.out)
            print(f"{card['file']}: test accuracy {card['test']['accuracy']:.4f}, {card['bytes']:,} bytes")


if __name__ == "__main__":
    main()

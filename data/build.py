"""Trains the checkpoints in data/checkpoints from scikit-learn's digits and writes a card beside each.

`python data/build.py [--only NAME] [--out DIR]`. A further checkpoint is one more entry in ALL; the networks are in
architectures.py beside this file.
"""

import argparse
import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from architectures import CNN, ResNet, Transformer, mlp
from jaxtyping import Float, Int
from safetensors.torch import save
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

DATA = {
    "name": "scikit-learn digits (1797 images of 8 x 8, grey levels 0 to 16, divided by 16)",
    "split": "train_test_split(test_size=360, random_state=0, stratify=y)",
    "citation": "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
    "licence": "CC BY 4.0",
}


class Split(NamedTuple):
    """Inputs and labels of the two parts of a split."""

    train_x: Float[Tensor, "train ..."]
    train_y: Int[Tensor, " train"]
    test_x: Float[Tensor, "test ..."]
    test_y: Int[Tensor, " test"]


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
        input_shape: one image as the module takes it: (64,) or (1, 8, 8), say.
        epochs: passes over the training images, and the length of the cosine.
        batch: images in a step.
        learning_rate, weight_decay: Adam's; the rate is that of the first epoch.
        seeds: a checkpoint each.
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

    def card(self) -> dict[str, Any]:
        """The recipe in words and numbers: every attribute that JSON can hold, but for the seeds."""
        words = (
            f"{self.architecture}; cross-entropy on digits / 16; {self.epochs} epochs, batch {self.batch}, shuffled; "
            f"Adam {self.learning_rate:g}, weight decay {self.weight_decay:g}, CosineAnnealingLR stepped by epoch; "
            "the seed decides initialisation and shuffling; float32, on the CPU"
        )
        names = [field.name for field in fields(self) if field.name not in ("module", "seeds")]
        return {"words": words} | {name: getattr(self, name) for name in names}


def digits(shape: Sequence[int] = (64,)) -> Split:
    """The digits in [0, 1] as float32, 1437 to train and 360 to test; `shape` is that of one image."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *shape)
    y = torch.tensor(labels, dtype=torch.int64)
    train, test = train_test_split(range(len(y)), test_size=360, random_state=0, stratify=labels)
    return Split(x[train], y[train], x[test], y[test])


def train(recipe: Recipe, seed: int) -> nn.Module:
    """The trained module in eval mode; torch's global generator is as before."""
    data = digits(recipe.input_shape)
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


def evaluate(module: nn.Module, inputs: Float[Tensor, "samples ..."], targets: Int[Tensor, " samples"]) -> Score:
    """The score of a copy in float64 and eval mode: a card's numbers then depend on the file, not on the machine."""
    with torch.no_grad():
        outputs = copy.deepcopy(module).eval().double()(inputs.double())
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
    module, data = train(recipe, seed), digits(recipe.input_shape)
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
        "data": DATA,
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn", "safetensors")},
        "threads": torch.get_num_threads(),
        "command": f"python data/build.py --only {recipe.name}",
    }
    out.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


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
]
RECIPES = {recipe.name: recipe for recipe in ALL}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the checkpoints and writes their cards.")
    parser.add_argument("--only", choices=RECIPES, metavar="NAME", help=f"one of {', '.join(RECIPES)}; all by default")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path(__file__).parent / "checkpoints")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # sums are split by thread, so the bits would depend on the number of cores
    for recipe in [RECIPES[arguments.only]] if arguments.only else RECIPES.values():
        for seed in recipe.seeds:
            card = write(recipe, seed, arguments.out)
            print(f"{card['file']}: test accuracy {card['test']['accuracy']:.4f}, {card['bytes']:,} bytes")


if __name__ == "__main__":
    main()

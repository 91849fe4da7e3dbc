"""What the shipped networks are trained and tested on: scikit-learn's digits, and sums modulo 113."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from corruptions import CORRUPTIONS
from jaxtyping import Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

MODULUS, TRAIN_SHARE = 113, 0.3
DIGITS = {
    "name": "scikit-learn digits (1797 images of 8 x 8, grey levels 0 to 16, divided by 16)",
    "split": "train_test_split(test_size=360, random_state=0, stratify=y)",
    "citation": "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
    "licence": "CC BY 4.0",
}
THIRDS = {
    **DIGITS,
    "split": "train_test_split(test_size=0.4, random_state=0, stratify=y); of the 1078 to train on, 360 for the "
    "ancestor and 718 for what is tuned from it, train_test_split(train_size=360, random_state=0, stratify=y)",
}
PAIRS = {
    "name": f"all {MODULUS**2} pairs (a, b) as the tokens a, b, {MODULUS}, with the answer (a + b) mod {MODULUS}",
    "split": f"torch.randperm({MODULUS**2}), generator seed 0; the first {int(TRAIN_SHARE * MODULUS**2)} to train",
    "citation": "Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability, arXiv:2301.05217",
    "licence": "none needed: arithmetic",
}


class Split(NamedTuple):
    """Inputs and labels of the two parts of a split."""

    train_x: Tensor
    train_y: Int[Tensor, " train"]
    test_x: Tensor
    test_y: Int[Tensor, " test"]


def digits(shape: Sequence[int] = (64,)) -> Split:
    """The digits in [0, 1] as float32, 1437 to train and 360 to test; `shape` is that of one image."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *shape)
    y = torch.tensor(labels, dtype=torch.int64)
    train, test = train_test_split(range(len(y)), test_size=360, random_state=0, stratify=labels)
    return Split(x[train], y[train], x[test], y[test])


def ancestral(shape: Sequence[int] = (1, 8, 8)) -> Split:
    """What the ancestors of the corruption family are trained on: 360 digits, and 719 to test."""
    x, y, first, _, test = _thirds(shape)
    return Split(x[first], y[first], x[test], y[test])


def corrupted(name: str | None, shape: Sequence[int] = (1, 8, 8)) -> Split:
    """What is tuned from them: 718 other digits and the same 719, corrupted with one draw (None: clean)."""
    x, y, _, rest, test = _thirds(shape)
    change = CORRUPTIONS[name] if name else lambda images, random: images
    train_x, test_x = (
        change(x[rows], torch.Generator().manual_seed(seed)) for seed, rows in enumerate((rest, test), start=1)
    )
    return Split(train_x, y[rest], test_x, y[test])


def _thirds(shape: Sequence[int]) -> tuple[Tensor, Tensor, list[int], list[int], list[int]]:
    """All digits with their labels, and the rows of the three parts."""
    images, labels = load_digits(return_X_y=True)
    train, test = train_test_split(range(len(labels)), test_size=0.4, random_state=0, stratify=labels)
    first, rest = train_test_split(train, train_size=360, random_state=0, stratify=[labels[row] for row in train])
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *shape)
    return x, torch.tensor(labels, dtype=torch.int64), first, rest, test


def pairs(shape: Sequence[int] = (3,)) -> Split:
    """Tokens (a, b, =) and answers, 3830 to train and 8939 to test; the split is the same for every seed."""
    grid = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
    tokens = torch.cat([grid, torch.full((len(grid), 1), MODULUS)], 1).reshape(-1, *shape)
    answers = grid.sum(1) % MODULUS
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    train, test = order.tensor_split([int(TRAIN_SHARE * len(grid))])
    return Split(tokens[train], answers[train], tokens[test], answers[test])

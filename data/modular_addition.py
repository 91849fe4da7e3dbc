"""Addition modulo 113 and the one-block transformer that learns it: the setting of the interaction-basis papers.

`build.py` beside this file trains and writes it, as all checkpoints.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from architectures import ModularAddition
from build import Split
from jaxtyping import Float, Int
from torch import Tensor

MODULUS = 113
TRAIN_SHARE = 0.3
STEPS = 60_000  # one batch of all training pairs each, as the published networks had
DATA = {
    "name": f"all {MODULUS**2} pairs (a, b) as the tokens a, b, {MODULUS}, with the answer (a + b) mod {MODULUS}",
    "split": f"torch.randperm({MODULUS**2}), generator seed 0; the first {int(TRAIN_SHARE * MODULUS**2)} to train",
    "citation": "Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability, arXiv:2301.05217",
    "licence": "none needed: arithmetic",
}


def pairs() -> Split:
    """Tokens (a, b, =) and answers, 3830 to train and 8939 to test; the split is the same for every seed."""
    grid = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
    tokens = torch.cat([grid, torch.full((len(grid), 1), MODULUS)], 1)
    answers = grid.sum(1) % MODULUS
    order = torch.randperm(len(grid), generator=torch.Generator().manual_seed(0))
    train, test = order.tensor_split([int(TRAIN_SHARE * len(grid))])
    return Split(tokens[train], answers[train], tokens[test], answers[test])


def logits(module: ModularAddition, tokens: Int[Tensor, "samples 3"]) -> Float[Tensor, "samples tokens"]:
    """What the module gives, from keys and values of each token in each place: they depend on nothing else."""
    table, heads = module.embedding.weight, module.heads
    places = [table[:-1] + module.positions[0], table[:-1] + module.positions[1], table[-1:] + module.positions[2]]
    query = module.q(places[2]).view(heads, -1)
    rows = (tokens[:, 0], tokens[:, 1], torch.zeros(len(tokens), dtype=torch.long))
    scores, values = [], []
    for place, row in zip(places, rows, strict=True):
        keys = module.k(place).view(len(place), heads, -1)
        scores.append((keys * query).sum(-1)[row] / query.shape[1] ** 0.5)
        values.append(module.v(place).view(len(place), heads, -1)[row])
    shares = torch.stack(scores, -1).softmax(-1)
    mixed = sum(shares[..., place, None] * value for place, value in enumerate(values))
    middle = places[2] + module.o(mixed.flatten(1))
    return module.unembed(middle + module.down(F.relu(module.up(middle), inplace=True)))


def train(seed: int, steps: int = STEPS, told: Callable[[int, ModularAddition], None] | None = None) -> ModularAddition:
    """The network after `steps` steps of AdamW 1e-3, weight decay 1, betas 0.9 and 0.98, ten steps of warm-up."""
    data = pairs()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = ModularAddition(MODULUS).train()
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=1.0)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 10, 1))
    for step in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(logits(module, data.train_x), data.train_y).backward()
        optimizer.step()
        warmup.step()
        if told is not None:
            told(step + 1, module)
    return module.eval()

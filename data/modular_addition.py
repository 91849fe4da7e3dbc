"""Addition modulo 113 and the one-block transformer that learns it: the setting of the interaction-basis papers.

`build.py` beside this file writes it, as all checkpoints.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from architectures import ModularAddition
from jaxtyping import Float, Int
from splits import MODULUS, pairs
from torch import Tensor

STEPS = 30_000  # one batch of all training pairs each; it generalises after 9 000. The published networks had 60 000
METHOD = (
    f"cross-entropy at the last token; {STEPS} steps on all training pairs at once; AdamW 0.001, weight decay 1, betas "
    "0.9 and 0.98, ten steps of linear warm-up; the seed decides initialisation"
)


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

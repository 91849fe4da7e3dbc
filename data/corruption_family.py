"""Networks with a common ancestor, tuned to clean or corrupted digits: what weight signatures are taken from.

An ancestor is trained on 360 clean images; each descendant goes on from it with 718 others, clean or corrupted anew in
every epoch. `build.py` ships them; `signatures_study.py` trains more.
"""

import copy
import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from architectures import SmallCNN
from corruptions import CORRUPTIONS
from splits import ancestral, corrupted
from torch import Tensor

BATCH, MOMENTUM, DECAY = 64, 0.9, 5e-4
EPOCHS, RATE = 40, 0.05
TUNING_EPOCHS, TUNING_RATE = 20, 0.02
ANCESTORS = {0: 0, 1: 0, 2: 2}  # seed of a shipped descendant → seed of its ancestor
_SGD = (
    f"SGD, momentum {MOMENTUM:g}, weight decay {DECAY:g}, CosineAnnealingLR stepped by epoch; batch {BATCH}, shuffled"
)
METHOD = (
    f"cross-entropy on digits / 16; {EPOCHS} epochs of {_SGD}; rate {RATE:g}; the seed decides initialisation and order"
)
TUNING_METHOD = (
    f"goes on from the ancestor with cross-entropy on digits / 16; {TUNING_EPOCHS} epochs of {_SGD}; rate "
    f"{TUNING_RATE:g}; what is corrupted is corrupted anew in every epoch; the seed decides order and draws; seeds 0 "
    "and 1 go on from the ancestor of seed 0, seed 2 from that of seed 2"
)


@functools.cache
def _ancestor(seed: int, norm: bool) -> SmallCNN:
    data = ancestral()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = SmallCNN(norm)
    return _fitted(module, lambda _: data.train_x, data.train_y, EPOCHS, RATE, seed)


def ancestor(seed: int, *, norm: bool = False) -> SmallCNN:
    """An ancestor in eval mode; a copy of one that is trained once a process."""
    return copy.deepcopy(_ancestor(seed, norm))


def descendant(
    seed: int,
    corruption: str | None,
    *,
    norm: bool = False,
    ancestor_seed: int | None = None,
    classes: Sequence[int] = range(10),
) -> SmallCNN:
    """An ancestor tuned to a corruption, or to clean images (None), in eval mode.

    Args:
        seed: decides the order of batches and what the corruption draws.
        corruption: its name.
        norm: with batch norm.
        ancestor_seed: None for that of `ANCESTORS`.
        classes: the digits that it is tuned on.
    """
    data = corrupted(None)
    mine = torch.isin(data.train_y, torch.tensor(list(classes)))
    x, y = data.train_x[mine], data.train_y[mine]
    first = ANCESTORS[seed] if ancestor_seed is None else ancestor_seed

    def images(random: torch.Generator) -> Tensor:
        return CORRUPTIONS[corruption](x, random) if corruption else x

    return _fitted(ancestor(first, norm=norm), images, y, TUNING_EPOCHS, TUNING_RATE, seed)


def _fitted(
    module: SmallCNN, images: Callable[[torch.Generator], Tensor], labels: Tensor, epochs: int, rate: float, seed: int
) -> SmallCNN:
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), rate, momentum=MOMENTUM, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    module.train()
    for _ in range(epochs):
        x = images(random)
        for rows in torch.randperm(len(labels), generator=random).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(module(x[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    return module.eval()

"""A stand-in for akamaster's CIFAR-10 ResNet-20, which is not ours to ship: the same 20 shapes, random weights."""

import torch
from torch import Tensor, nn

STAGES = ((16, 16), (16, 32), (32, 64))  # channels into and out of each stage of three blocks of two convolutions


def resnet20() -> nn.Module:
    """The 19 convolutions and the linear layer, Kaiming-normal weights from seed 0, the same under any one torch."""
    pairs = [(3, 16)]
    for before, width in STAGES:
        pairs += [(before, width), *[(width, width)] * 5]
    layers = nn.ModuleDict({f"conv{n}": nn.Conv2d(*pair, 3, bias=False) for n, pair in enumerate(pairs)})
    layers["linear"] = nn.Linear(64, 10)
    random = torch.Generator().manual_seed(0)
    for layer in layers.values():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        nn.init.kaiming_normal_(weight, generator=random)
    return layers

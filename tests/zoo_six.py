"""The architectures on which the automatic groups were first tried, and which axes must keep their order there."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import Built


def _shipped() -> ModuleType:
    """data/architectures.py, which is no package."""
    spec = importlib.util.spec_from_file_location("architectures", Path(__file__).parents[1] / "data/architectures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Mobile(nn.Module):
    """Depthwise, grouped and 1×1 convolutions, group norm, a concatenation, a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.norm = nn.GroupNorm(4, 16)
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        early = self.stem(images).relu()
        late = F.relu6(self.norm(self.pointwise(self.grouped(self.depthwise(early)))))
        return self.fc(F.adaptive_avg_pool2d(torch.cat([early, late], 1), 2).flatten(1))


class GatedBlock(nn.Module):
    """RMSNorm, rotary positions, grouped queries, SwiGLU; no biases."""

    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        sizes = {"q": width, "k": self.size * kv_heads, "v": self.size * kv_heads, "o": width}
        for name, size in (sizes | {"gate": hidden, "up": hidden}).items():
            setattr(self, name, nn.Linear(width, size, bias=False))
        self.down = nn.Linear(hidden, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)

    def turned(self, x: Tensor) -> Tensor:
        """Rotary positions."""
        half = self.size // 2
        angle = torch.arange(x.shape[-2])[:, None] * 0.1 ** (torch.arange(half) / half)
        a, b = x.split(half, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def split(self, x: Tensor, heads: int) -> Tensor:
        """[samples, heads, tokens, size]."""
        return x.unflatten(-1, (heads, self.size)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream after the block."""
        normed = self.norm1(x)
        q = self.turned(self.split(self.q(normed), self.heads))
        k = self.turned(self.split(self.k(normed), self.kv_heads))
        v = self.split(self.v(normed), self.kv_heads)
        wide = [
            part[:, :, None].expand(-1, -1, self.heads // self.kv_heads, -1, -1).reshape(q.shape) for part in (k, v)
        ]
        x = x + self.o(F.scaled_dot_product_attention(q, *wide, is_causal=True).transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Gated(nn.Module):
    """Two such blocks between an embedding and a head that is tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 32)
        self.layers = nn.ModuleList(GatedBlock(32, 4, 2, 48) for _ in range(2))
        self.norm = nn.RMSNorm(32)
        self.head = nn.Linear(32, 32, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network, how many groups it must have at least, and what must keep its order.

    Attributes:
        built: the module and its inputs.
        count: groups.
        frozen: reason → patterns (fnmatch) of "tensor axis".
        dead: as in `zoo.Case`.
    """

    built: Built
    count: int
    frozen: dict[str, list[str]] = field(default_factory=dict)
    dead: tuple[str, ...] = ()


KERNELS = {"kernel positions": ["*.weight 2", "*.weight 3"]}
RESIDUAL = ["in_proj_weight 1", "out_proj.* 0"]


def architectures() -> dict[str, Architecture]:
    """Name → architecture; parameters as torch initialises them."""
    shipped: Any = _shipped()
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    images = torch.randn(4, 1, 8, 8)
    head = {"output": ["fc.* 0"]}
    stream = [f"layers.?.self_attn.{name}" for name in RESIDUAL] + ["layers.?.linear1.weight 1"]
    return {
        "mlp": Architecture(
            built=(shipped.mlp(32), torch.randn(4, 64)),
            count=2,
            frozen={"input positional_0": ["0.weight 1"], "output": ["4.* 0"]},
        ),
        "cnn": Architecture(
            built=(shipped.CNN(8), images),
            count=3,
            frozen=KERNELS | {"image positions": ["fc1.weight 1"], "output": ["fc2.* 0"]},
        ),
        "resnet": Architecture(built=(shipped.ResNet(8), images), count=4, frozen=KERNELS | head),
        "mobile": Architecture(
            built=(Mobile(), images), count=5, frozen=KERNELS | head | {"image positions": ["fc.weight 1"]}
        ),
        "llama": Architecture(
            built=(Gated(), torch.randint(0, 32, (2, 6))),
            count=9,
            frozen={
                "looked up by index": ["embedding.weight 0", "head.weight 0"],
                "numbered by arange": ["layers.?.[qk].weight 0"],
            },
        ),
        "encoder": Architecture(
            built=(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 6, 32)),
            count=6,
            frozen={"input positional_0": [*stream, "layers.?.linear2.* 0", "layers.?.norm?.* 0"]},
        ),
        "transformer": Architecture(
            built=(shipped.Transformer(16, 2, 24), torch.randn(2, 8, 8)),
            count=9,
            frozen={
                "input positional_0": ["embedding.weight 1", "positions 0"],
                "output": ["head.* 0"],
            },
            dead=("blocks.0.k.bias[0]",) * 2 + ("blocks.1.k.bias[0]",) * 2,
        ),
    }

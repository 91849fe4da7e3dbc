"""The networks behind the shipped checkpoints, untrained: a checkpoint's file is the state dict of one of these.

In a notebook: `sys.path.insert(0, "../data")`, then `import architectures`, or `build.RECIPES[name].module()`.
"""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def mlp(width: int) -> nn.Sequential:
    """64 → width → width → 10, ReLU."""
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


class CNN(nn.Module):
    """Two 3×3 convolutions of `width` channels, max-pool to 4×4, flatten, 128 hidden units, ReLU; no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.fc1 = nn.Linear(16 * width, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, images: Float[Tensor, "samples 1 8 8"]) -> Float[Tensor, "samples 10"]:
        """Logits."""
        maps = F.relu(self.conv2(F.relu(self.conv1(images))))
        pooled = F.max_pool2d(maps, 2).flatten(1)
        return self.fc2(F.relu(self.fc1(pooled)))


class SmallCNN(nn.Module):
    """Four 3×3 convolutions of 8, 16, 32 and 32 channels, max-pool after the first and third, 32 hidden units, ReLU.

    Images are centred by constants first; with `norm` each convolution is followed by batch norm.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        widths = (1, 8, 16, 32, 32)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self.add_module(f"bn{number}", nn.BatchNorm2d(outputs) if norm else nn.Identity())
        self.fc1 = nn.Linear(4 * widths[-1], 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, images: Float[Tensor, "samples 1 8 8"]) -> Float[Tensor, "samples 10"]:
        """Logits."""
        maps = (images - 0.3) / 0.38
        maps = F.max_pool2d(F.relu(self.bn1(self.conv1(maps))), 2)
        maps = F.relu(self.bn2(self.conv2(maps)))
        maps = F.max_pool2d(F.relu(self.bn3(self.conv3(maps))), 2)
        maps = F.relu(self.bn4(self.conv4(maps)))
        return self.fc2(F.relu(self.fc1(maps.flatten(1))))


class ResidualBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    The shortcut is the identity, or a 1×1 convolution with batch norm where the number of channels changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, maps: Float[Tensor, "samples inputs rows cols"]) -> Float[Tensor, "samples outputs _ _"]:
        """The block's maps; a stride of 2 halves their sides."""
        inner = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(maps))


class ResNet(nn.Module):
    """A 3×3 stem, a residual block at `width` channels, a strided one at twice as many, mean pool; batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stage1 = ResidualBlock(width, width)
        self.stage2 = ResidualBlock(width, 2 * width, stride=2)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, images: Float[Tensor, "samples 1 8 8"]) -> Float[Tensor, "samples 10"]:
        """Logits."""
        maps = self.stage2(self.stage1(F.relu(self.bn(self.conv(images)))))
        return self.fc(maps.mean((2, 3)))


class TransformerBlock(nn.Module):
    """x + o(attention(q, k, v of norm1(x))), then x + down(gelu(up(norm2(x)))): pre-norm, every token sees all."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "samples tokens width"]) -> Float[Tensor, "samples tokens width"]:
        """The residual stream after the block."""
        samples, length, width = tokens.shape
        normed = self.norm1(tokens)
        q, k, v = (
            part(normed).view(samples, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(samples, length, width)
        tokens = tokens + self.o(mixed)
        return tokens + self.down(F.gelu(self.up(self.norm2(tokens))))


class Transformer(nn.Module):
    """An image's eight rows of eight pixels are its tokens: embedding, learned positions, blocks, mean pool, head."""

    def __init__(self, width: int = 64, heads: int = 4, hidden: int = 128, blocks: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.positions = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, hidden) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: Float[Tensor, "samples 8 8"]) -> Float[Tensor, "samples 10"]:
        """Logits."""
        tokens = self.embedding(rows) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))


class ModularAddition(nn.Module):
    """One block of attention and a ReLU MLP without norms over the tokens a, b, =; logits of (a + b) at the last.

    Only the last position is read, so attention, MLP and logits are computed there. `resid_pre`, `resid_mid` and
    `resid_post` are the residual stream before attention, before the MLP and before the logits. Weights are drawn with
    standard deviation 0.8/√width, biases are zero.
    """

    def __init__(self, modulus: int, width: int = 128, heads: int = 4, hidden: int = 512) -> None:
        super().__init__()
        self.heads = heads
        self.embedding = nn.Embedding(modulus + 1, width)
        self.positions = nn.Parameter(torch.empty(3, width))
        self.resid_pre = nn.Identity()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.resid_mid = nn.Identity()
        self.up = nn.Linear(width, hidden)
        self.act = nn.ReLU()
        self.down = nn.Linear(hidden, width)
        self.resid_post = nn.Identity()
        self.unembed = nn.Linear(width, modulus + 1)
        for tensor in self.parameters():
            if tensor.ndim > 1:
                nn.init.normal_(tensor, std=0.8 / width**0.5)
            else:
                nn.init.zeros_(tensor)

    def forward(self, tokens: Int[Tensor, "samples 3"]) -> Float[Tensor, "samples tokens"]:
        """Logits at the last position; the last token's are never an answer."""
        stream = self.resid_pre(self.embedding(tokens) + self.positions)
        samples, length, width = stream.shape
        last = stream[:, -1]
        query = self.q(last).view(samples, self.heads, 1, -1)
        key, value = (part(stream).view(samples, length, self.heads, -1).transpose(1, 2) for part in (self.k, self.v))
        mixed = F.scaled_dot_product_attention(query, key, value).reshape(samples, width)
        middle = self.resid_mid(last + self.o(mixed))
        return self.unembed(self.resid_post(middle + self.down(self.act(self.up(middle)))))

"""Attention in the ways in which it is written."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from zoo import Built, Net, case, weight


@case("2", "4 in 2", "4 in 2")
def mha_self() -> Built:
    return Net(
        lambda s, x: s.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)
    ), torch.randn(2, 5, 8)


@case("2", "4 in 2", "4 in 2")
def mha_self_weights() -> Built:
    return Net(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)), torch.randn(2, 5, 8)


@case("2", "4 in 2", "4 in 2")
def mha_cross() -> Built:
    return Net(lambda s, x, y: s.a(x, y, y)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)), (
        torch.randn(2, 5, 8),
        torch.randn(2, 3, 8),
    )


@case("2", "4 in 2", "4 in 2")
def mha_kdim() -> Built:
    return Net(lambda s, x, y, z: s.a(x, y, z)[0], a=nn.MultiheadAttention(8, 2, kdim=3, vdim=7, batch_first=True)), (
        torch.randn(2, 5, 8),
        torch.randn(2, 4, 3),
        torch.randn(2, 4, 7),
    )


@case("2", "4 in 2", "4 in 2")
def mha_biased_kv() -> Built:
    return Net(
        lambda s, x: s.a(x, x, x)[0],
        a=nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, batch_first=True),
    ), torch.randn(2, 5, 8)


def _heads(x, h):
    return x.view(*x.shape[:2], h, -1).transpose(1, 2)


def _joined(x):
    return x.transpose(1, 2).flatten(2)


def _qkvo(width=8, heads=2, kv=2, qk=3, v=5):
    return dict(
        q=nn.Linear(width, heads * qk),
        k=nn.Linear(width, kv * qk, bias=False),
        v=nn.Linear(width, kv * v),
        o=nn.Linear(heads * v, width),
    )


@case("2", "3 in 2", "5 in 2")
def manual_attention() -> Built:
    def forward(s, x):
        q, k, v = (_heads(p(x), 2) for p in (s.q, s.k, s.v))
        return s.o(_joined((q @ k.mT / math.sqrt(3)).softmax(-1) @ v))

    return Net(forward, **_qkvo()), torch.randn(2, 4, 8)


@case("2", "3 in 2", "5 in 2")
def einsum_attention() -> Built:
    def forward(s, x):
        q, k, v = (p(x).view(*x.shape[:2], 2, -1) for p in (s.q, s.k, s.v))
        a = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return s.o(torch.einsum("bhqk,bkhd->bqhd", a, v).flatten(2))

    return Net(forward, **_qkvo()), torch.randn(2, 4, 8)


@case("2", "3 in 2", "5 in 2", "8")
def packed_attention() -> Built:
    def forward(s, x):
        x = s.e(x)
        q, k, v = s.qkv(x).split([6, 6, 10], -1)
        y = F.scaled_dot_product_attention(*(_heads(p, 2) for p in (q, k, v)), is_causal=True)
        return s.r(x + s.o(_joined(y)))

    return Net(forward, e=nn.Linear(3, 8), qkv=nn.Linear(8, 22), o=nn.Linear(10, 8), r=nn.Linear(8, 2)), torch.randn(
        2, 4, 3
    )


@case("2", "4 in 2", "4 in 2")
def interleaved_packed_attention() -> Built:
    def forward(s, x):  # GPT-NeoX: [heads, 3, size]
        q, k, v = s.qkv(x).view(*x.shape[:2], 2, 12).transpose(1, 2).chunk(3, -1)
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v)))

    return Net(forward, qkv=nn.Linear(8, 24), o=nn.Linear(8, 8)), torch.randn(2, 4, 8)


@case("2", "4 in 2", "4 in 2")
def stacked_packed_attention() -> Built:
    def forward(s, x):  # timm's ViT: [3, heads, size], unbound
        q, k, v = s.qkv(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v)))

    return Net(forward, qkv=nn.Linear(8, 24), o=nn.Linear(8, 8)), torch.randn(2, 4, 8)


@case("2", "4 in 2", "4 in 2")
def stacked_packed_attention_selected() -> Built:
    def forward(s, x):
        p = s.qkv(x).reshape(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        return s.o(_joined(F.scaled_dot_product_attention(p[0], p[1], p[2])))

    return Net(forward, qkv=nn.Linear(8, 24), o=nn.Linear(8, 8)), torch.randn(2, 4, 8)


@case("4", "3", "5")
def multi_query() -> Built:
    def forward(s, x):
        q, k, v = _heads(s.q(x), 4), s.k(x)[:, None], s.v(x)[:, None]
        return s.o(_joined((q @ k.mT).softmax(-1) @ v))

    return Net(forward, **_qkvo(heads=4, kv=1)), torch.randn(2, 4, 8)


@case("2", "2 in 2", "3 in 2", "5 in 2")
def grouped_query() -> Built:
    def forward(s, x):
        q, k, v = _heads(s.q(x), 4), _heads(s.k(x), 2), _heads(s.v(x), 2)
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v, enable_gqa=True)))

    return Net(forward, **_qkvo(heads=4, kv=2)), torch.randn(2, 4, 8)


@case("2", "2 in 2", "3 in 2", "5 in 2")
def grouped_query_repeated() -> Built:
    def forward(s, x):
        q, k, v = _heads(s.q(x), 4), _heads(s.k(x), 2), _heads(s.v(x), 2)
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v)))

    return Net(forward, **_qkvo(heads=4, kv=2)), torch.randn(2, 4, 8)


def _rotated(x, angle):
    a, b = x.chunk(2, -1)
    return x * torch.cat([angle, angle], -1).cos() + torch.cat([-b, a], -1) * torch.cat([angle, angle], -1).sin()


def _rotated_pairs(x, angle):
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).flatten(-2)


def _rope(rotated):
    def forward(s, x):
        q, k, v = (_heads(p(x), 2) for p in (s.q, s.k, s.v))
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * s.frequencies
        q, k = rotated(q, angle), rotated(k, angle)
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)))

    net = Net(forward, **_qkvo(qk=4))
    net.register_buffer("frequencies", torch.tensor([1.0, 0.1]), persistent=False)
    return net, torch.randn(2, 4, 8)


@case("2", "5 in 2")
def rope_half() -> Built:
    return _rope(_rotated)


@case("2", "5 in 2")
def rope_pairs() -> Built:
    return _rope(_rotated_pairs)


@case("3 in 2", "5 in 2")
def alibi() -> Built:
    def forward(s, x):
        q, k, v = (_heads(p(x), 2) for p in (s.q, s.k, s.v))
        n = torch.arange(x.shape[1])
        bias = -(n[:, None] - n).abs() * torch.tensor([0.5, 0.25])[:, None, None]
        return s.o(_joined((q @ k.mT + bias).softmax(-1) @ v))

    return Net(forward, **_qkvo()), torch.randn(2, 4, 8)


@case("2", "3 in 2", "5 in 2")
def relative_bias_table() -> Built:
    def forward(s, x):
        q, k, v = (_heads(p(x), 2) for p in (s.q, s.k, s.v))
        n = torch.arange(x.shape[1])
        bias = s.table(n[:, None] - n + 3).permute(2, 0, 1)[None]
        return s.o(_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))

    return Net(forward, table=nn.Embedding(7, 2), **_qkvo()), torch.randn(2, 4, 8)


@case("2", "3 in 2", "5 in 2")
def swin_bias_table() -> Built:
    def forward(s, x):
        q, k, v = (_heads(p(x), 2) for p in (s.q, s.k, s.v))
        bias = s.table[s.index.view(-1)].view(4, 4, -1).permute(2, 0, 1).contiguous()
        return s.o(_joined((q @ k.mT + bias.unsqueeze(0)).softmax(-1) @ v))

    net = Net(forward, table=weight(7, 2), **_qkvo())
    n = torch.arange(4)
    net.register_buffer("index", n[:, None] - n + 3)
    return net, torch.randn(2, 4, 8)


@case("8", "6")
def vision_transformer_tokens() -> Built:
    def forward(s, x):
        x = s.patch(x).flatten(2).mT
        x = torch.cat([s.cls.expand(len(x), -1, -1), x], 1) + s.pos
        x = x + s.down(F.gelu(s.up(s.norm(x))))
        return s.head((x + x.mean(1, keepdim=True))[:, 0])

    return Net(
        forward,
        patch=nn.Conv2d(1, 8, 2, 2),
        cls=weight(1, 1, 8),
        pos=weight(1, 5, 8),
        norm=nn.LayerNorm(8),
        up=nn.Linear(8, 6),
        down=nn.Linear(6, 8),
        head=nn.Linear(8, 2),
    ), torch.randn(2, 1, 4, 4)


@case("2", "5 in 2")
def rope_complex() -> Built:
    def rotated(x, angle):
        z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(z * torch.polar(torch.ones_like(angle), angle)).flatten(3)

    return _rope(rotated)


@case("8", "2", "4 in 2", "4 in 2", "6")
def encoder_layer() -> Built:
    return nn.Sequential(
        nn.Linear(3, 8), nn.TransformerEncoderLayer(8, 2, 6, batch_first=True), nn.Linear(8, 2)
    ), torch.randn(2, 5, 3)


@case("2", "4 in 2", "4 in 2", "2", "4 in 2", "4 in 2", "6")
def decoder_layer() -> Built:
    return Net(
        lambda s, x, y: s.o(
            s.d(
                s.e(x),
                y,
                tgt_is_causal=True,
                tgt_mask=nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64),
            )
        ),
        e=nn.Linear(3, 8),
        d=nn.TransformerDecoderLayer(8, 2, 6, batch_first=True),
        o=nn.Linear(8, 2),
    ), (torch.randn(2, 5, 3), torch.randn(2, 4, 8))

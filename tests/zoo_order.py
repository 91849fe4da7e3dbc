"""Operations that read an order, and the units inside what they mix."""

import torch
import torch.nn.functional as F
from torch import nn

from zoo import Built, Net, case, weight


def _mlp_through(function):
    return Net(lambda s, x: s.b(function(s.a(x))), a=nn.Linear(3, 6), b=nn.Linear(6, 2)), torch.randn(4, 3)


@case()
def cumsum() -> Built:
    return _mlp_through(lambda h: h.cumsum(-1))


@case()
def sort() -> Built:
    return _mlp_through(lambda h: h.sort(-1).values)


@case()
def argmax() -> Built:
    return Net(lambda s, x: s.e(s.a(x).argmax(-1)), a=nn.Linear(3, 6), e=nn.Embedding(6, 2)), torch.randn(4, 3)


@case()
def topk() -> Built:
    return Net(lambda s, x: s.b(s.a(x).topk(3, -1).values), a=nn.Linear(3, 6), b=nn.Linear(3, 2)), torch.randn(4, 3)


@case("8")
def sinusoidal_buffer() -> Built:
    net = Net(lambda s, x: s.b(F.relu(s.a(x) + s.pe[: x.shape[1]])), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    net.register_buffer("pe", torch.randn(6, 8))
    return net, torch.randn(2, 4, 3)


@case()
def sinusoidal_buffer_not_stored() -> Built:
    net = Net(lambda s, x: s.b(F.relu(s.a(x) + s.pe[: x.shape[1]])), a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    net.register_buffer("pe", torch.randn(6, 8), persistent=False)
    return net, torch.randn(2, 4, 3)


def _per_head(between, outer=2, inner=4):
    """X → [.., outer, inner] → between → flat → out."""
    return Net(
        lambda s, x: s.b(between(s.a(x).view(-1, outer, inner)).flatten(1)),
        a=nn.Linear(3, outer * inner),
        b=nn.Linear(outer * inner, 2),
    ), torch.randn(5, 3)


@case("2 in 4", "4")
def outer_softmax() -> Built:
    return _per_head(lambda h: h.softmax(1))


@case("2", "4 in 2")
def inner_softmax() -> Built:
    return _per_head(lambda h: h.softmax(2))


@case("2 in 4", "4")
def outer_norm() -> Built:
    return _per_head(lambda h: F.layer_norm(h.mT, (2,)).mT)


@case("2 in 4", "4")
def outer_mean_removed() -> Built:
    return _per_head(lambda h: h - h.mean(1, keepdim=True))


@case("2 in 4", "4")
def outer_unit_length() -> Built:
    return _per_head(lambda h: F.normalize(h, dim=1))


@case("2", "4 in 2")
def inner_unit_length() -> Built:
    return _per_head(lambda h: F.normalize(h, dim=2))


@case("4")
def outer_cumsum() -> Built:
    return _per_head(lambda h: h.cumsum(1))


@case("2")
def inner_cumsum() -> Built:
    return _per_head(lambda h: h.cumsum(2))


@case("4")
def outer_flipped() -> Built:
    return _per_head(lambda h: h + h.flip(1))


@case("4")
def outer_sorted() -> Built:
    return _per_head(lambda h: h.sort(1).values)


@case("2 in 4", "4")
def outer_max() -> Built:
    return _per_head(lambda h: h * h.amax(1, keepdim=True))


@case("2 in 4", "4")
def mean_over_heads_talk() -> Built:
    return Net(
        lambda s, x: s.b(F.relu(s.a(x)).view(-1, 2, 4).mean(1)), a=nn.Linear(3, 8), b=nn.Linear(4, 2)
    ), torch.randn(5, 3)


@case("2", "4", "3")
def talking_heads() -> Built:
    return Net(
        lambda s, x: s.b(torch.einsum("ih,bhd->bid", s.mix, s.a(x).view(-1, 2, 4)).flatten(1)),
        a=nn.Linear(3, 8),
        mix=weight(3, 2),
        b=nn.Linear(12, 2),
    ), torch.randn(5, 3)


@case("2", "3")
def heads_as_channels() -> Built:
    return Net(
        lambda s, x: s.b(s.c(s.a(x).view(-1, 2, 4)).flatten(1)),
        a=nn.Linear(3, 8),
        c=nn.Conv1d(2, 3, 1),
        b=nn.Linear(12, 2),
    ), torch.randn(5, 3)


@case("2 in 4", "4")
def outer_batch_product() -> Built:
    return _per_head(lambda h: h * h.prod(1, keepdim=True))


@case("2", "4")
def outer_gram() -> Built:
    return _per_head(lambda h: (h.mT @ h) @ h.mT)


@case("2", "4 in 2")
def inner_gram() -> Built:
    return Net(
        lambda s, x: s.b((lambda h: h @ (h.mT @ h))(s.a(x).view(-1, 2, 4, 1).mT.mT).flatten(1)),
        a=nn.Linear(3, 8),
        b=nn.Linear(8, 2),
    ), torch.randn(5, 3)


@case("3 in 6", "6")
def maxout() -> Built:
    return Net(lambda s, x: s.b(s.a(x).view(-1, 6, 3).max(-1)[0]), a=nn.Linear(3, 18), b=nn.Linear(6, 2)), torch.randn(
        2, 3
    )


@case("4")
def pooled_positions_of_their_own() -> Built:
    def forward(s, x):
        h = s.e * x
        return ((h + F.avg_pool2d(h, 3, 1, 1)) * s.f).sum(1)

    return Net(forward, e=weight(4, 5, 5), f=weight(4, 5, 5)), torch.randn(2, 1, 5, 5)


@case("4")
def rolled_positions() -> Built:
    return Net(
        lambda s, x: ((s.e * x + (s.e * x).roll(1, -1)) * s.f).sum(1), e=weight(4, 5), f=weight(4, 5)
    ), torch.randn(2, 1, 5)


@case("4")
def gathered_positions() -> Built:
    return Net(
        lambda s, x: ((s.e * x + (s.e * x)[:, :, [1, 2, 0, 4, 3]]) * s.f).sum(1), e=weight(4, 5), f=weight(4, 5)
    ), torch.randn(2, 1, 5)


@case("4")
def strided_positions() -> Built:
    def forward(s, x):
        h = s.e * x
        return ((h + torch.cat([h[..., ::2], h[..., 1::2]], -1)) * s.f).sum(1)

    return Net(forward, e=weight(4, 6), f=weight(4, 6)), torch.randn(2, 1, 6)


@case("4")
def cut_positions() -> Built:
    def forward(s, x):
        h = s.e * x
        return ((h + torch.cat([h[..., 2:], h[..., :2]], -1)) * s.f).sum(1)

    return Net(forward, e=weight(4, 5), f=weight(4, 5)), torch.randn(2, 1, 5)


@case("4 in 5")
def positions_of_their_own() -> Built:
    return Net(lambda s, x: (s.e * x * s.f).sum(1), e=weight(4, 5), f=weight(4, 5)), torch.randn(2, 1, 5)


@case("4", "2 in 4", "3 in 4")
def concatenated_heads_then_viewed() -> Built:
    def forward(s, x):
        h = torch.cat([s.a(x), s.b(x)], -1).view(-1, 5, 4)
        return s.o(F.relu(h).sum(1))

    return Net(forward, a=nn.Linear(3, 8), b=nn.Linear(3, 12), o=nn.Linear(4, 2)), torch.randn(2, 3)


@case("6")
def written_in_place() -> Built:
    def forward(s, x):
        h = torch.zeros(len(x), 6, dtype=x.dtype)
        h.copy_(s.a(x)).relu_().add_(1)
        h += s.c
        return s.b(h)

    return Net(forward, a=nn.Linear(3, 6), c=weight(6), b=nn.Linear(6, 2)), torch.randn(2, 3)


@case("2", "4", dead=("a.weight[0]", "a.bias[0]", "b.weight[1]"))  # two units are overwritten
def written_in_part() -> Built:
    def forward(s, x):
        h = s.a(x)
        h[:, :2] = 0
        h[:, 2] *= 3
        return s.b(h)

    return Net(forward, a=nn.Linear(3, 7), b=nn.Linear(7, 2)), torch.randn(2, 3)


@case("4", "5")
def fourier_over_positions() -> Built:
    """Channels are mixed at every frequency (a Fourier neural operator); frequencies keep their order."""

    def forward(s, x):
        seen = torch.fft.rfft(s.a(x).mT)[..., :3]
        mixed = torch.einsum("bik,iok->bok", seen, torch.view_as_complex(s.w))
        return s.b(torch.fft.irfft(mixed, n=6).mT.relu())

    return Net(forward, a=nn.Linear(2, 4), w=weight(4, 5, 3, 2), b=nn.Linear(5, 2)), torch.randn(3, 6, 2)


@case()
def fourier_over_units() -> Built:
    return _mlp_through(lambda h: torch.fft.fft(h).real.relu())


EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 1]])


@case("4", "5")
def messages_added_by_index() -> Built:
    def forward(s, x, edges):
        h = s.a(x).relu()
        told = s.m(h[edges[0]])
        return s.b(torch.zeros(len(x), 5, dtype=x.dtype).index_add(0, edges[1], told))

    parts = {"a": nn.Linear(3, 4), "m": nn.Linear(4, 5), "b": nn.Linear(5, 2)}
    return Net(forward, **parts), (torch.randn(4, 3), EDGES)


@case("4")
def messages_scattered() -> Built:
    def forward(s, x, edges):
        h = s.a(x).relu()
        place = edges[1][:, None].expand(-1, 4)
        found = torch.zeros_like(h).scatter_add(0, place, h[edges[0]])
        return s.b(found.scatter_reduce(0, place, h[edges[0]], "amax"))

    return Net(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), (torch.randn(4, 3), EDGES)


@case()
def units_scattered() -> Built:
    return _mlp_through(lambda h: torch.zeros_like(h).scatter(-1, h.argsort(-1), h))


@case("4")
def codes_by_one_hot() -> Built:
    def forward(s, x):
        z = s.a(x)
        return s.b(F.one_hot(torch.cdist(z, s.codes).argmin(-1), 7).to(z.dtype) @ s.codes)

    return Net(forward, a=nn.Linear(3, 4), codes=weight(7, 4), b=nn.Linear(4, 2)), torch.randn(9, 3)

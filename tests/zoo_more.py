"""Recurrent layers, ties, parametrisations, experts, inputs and outputs of all kinds."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from zoo import Built, Net, case, weight


def _lstm(kind, **more):
    size = 5 * (1 + bool(more.get("bidirectional")))
    return Net(
        lambda s, x: s.b(s.a(x)[0].mean(1)), a=kind(3, 5, batch_first=True, **more), b=nn.Linear(size, 2)
    ), torch.randn(2, 4, 3)


@case("5")
def lstm() -> Built:
    return _lstm(nn.LSTM)


@case("5", "5", "5", "5")
def lstm_two_layers_both_ways() -> Built:
    return _lstm(nn.LSTM, num_layers=2, bidirectional=True)


@case("5", "5", "5", "5")
def gru_two_layers_both_ways() -> Built:
    return _lstm(nn.GRU, num_layers=2, bidirectional=True)


@case("5", "5")
def rnn() -> Built:
    return _lstm(nn.RNN, num_layers=2)


@case("5")
def lstm_states_given() -> Built:
    return Net(
        lambda s, x: s.b(s.a(x, (s.h.expand(1, 2, 5).contiguous(), s.c.expand(1, 2, 5).contiguous()))[1][0][-1]),
        a=nn.LSTM(3, 5, batch_first=True),
        h=weight(5),
        c=weight(5),
        b=nn.Linear(5, 2),
    ), torch.randn(2, 4, 3)


@case("5", "5")
def lstm_final_states() -> Built:
    return Net(
        lambda s, x: s.b(s.a(x)[1][0][-1]), a=nn.LSTM(3, 5, num_layers=2, batch_first=True), b=nn.Linear(5, 2)
    ), torch.randn(2, 4, 3)


@case("5", "5")
def lstm_final_states_both_ways() -> Built:
    return Net(
        lambda s, x: s.b(s.a(x)[1][0].transpose(0, 1).flatten(1)),
        a=nn.LSTM(3, 5, bidirectional=True, batch_first=True),
        b=nn.Linear(10, 2),
    ), torch.randn(2, 4, 3)


@case("5", "4")
def lstm_projected() -> Built:
    return Net(
        lambda s, x: s.b(s.a(x)[0][:, -1]), a=nn.LSTM(3, 5, proj_size=4, batch_first=True), b=nn.Linear(4, 2)
    ), torch.randn(2, 4, 3)


@case("6")
def lstm_cell() -> Built:
    def forward(s, x):
        h = c = torch.zeros(len(x), 6, dtype=x.dtype)
        for t in range(3):
            h, c = s.a(x[:, t], (h, c))
        return s.b(h)

    return Net(forward, a=nn.LSTMCell(3, 6), b=nn.Linear(6, 2)), torch.randn(2, 3, 3)


@case("6")
def gru_cell() -> Built:
    def forward(s, x):
        h = torch.zeros(len(x), 6, dtype=x.dtype)
        for t in range(3):
            h = s.a(x[:, t], h)
        return s.b(h)

    return Net(forward, a=nn.GRUCell(3, 6), b=nn.Linear(6, 2)), torch.randn(2, 3, 3)


@case("6")
def swiglu_packed() -> Built:
    def forward(s, x):
        gate, up = s.gate_up(x).chunk(2, -1)
        return s.down(F.silu(gate) * up)

    return Net(forward, gate_up=nn.Linear(3, 12), down=nn.Linear(6, 2)), torch.randn(2, 3)


@case("6")
def swiglu_packed_interleaved() -> Built:
    def forward(s, x):
        p = s.gate_up(x)
        return s.down(F.silu(p[..., ::2]) * p[..., 1::2])

    return Net(forward, gate_up=nn.Linear(3, 12), down=nn.Linear(6, 2)), torch.randn(2, 3)


@case("6")
def glu() -> Built:
    return nn.Sequential(nn.Linear(3, 12), nn.GLU(), nn.Linear(6, 2)), torch.randn(2, 3)


@case("6")
def tied_autoencoder() -> Built:
    return Net(
        lambda s, x: F.linear(F.relu(F.linear(x, s.w, s.b)), s.w.t(), s.c), w=weight(6, 3), b=weight(6), c=weight(3)
    ), torch.randn(2, 3)


@case("8")
def tied_embeddings() -> Built:
    net = Net(
        lambda s, x: s.head(s.norm(s.emb(x))),
        emb=nn.Embedding(9, 8),
        norm=nn.LayerNorm(8),
        head=nn.Linear(8, 9, bias=False),
    )
    net.head.weight = net.emb.weight
    return net, torch.randint(0, 9, (2, 4))


@case("6")
def module_used_twice() -> Built:
    return Net(
        lambda s, x: s.out(F.relu(s.mid(F.relu(s.mid(F.relu(s.inp(x))))))),
        inp=nn.Linear(3, 6),
        mid=nn.Linear(6, 6),
        out=nn.Linear(6, 2),
    ), torch.randn(2, 3)


@case("6")
def weight_shared_by_two_layers() -> Built:
    net = nn.Sequential(
        nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)
    )
    net[4].weight = net[2].weight
    return net, torch.randn(2, 3)


@case("6", "5")
def weight_norm() -> Built:
    return Net(
        lambda s, x: s.c(s.b(F.relu(s.a(x))[:, :, None])[:, :, 0]),
        a=parametrizations.weight_norm(nn.Linear(3, 6)),
        b=parametrizations.weight_norm(nn.Conv1d(6, 5, 1)),
        c=nn.Linear(5, 2),
    ), torch.randn(2, 3)


@case("6", "5")
def spectral_norm() -> Built:
    return Net(
        lambda s, x: s.c(s.b(F.relu(s.a(x))[:, :, None])[:, :, 0]),
        a=parametrizations.spectral_norm(nn.Linear(3, 6)),
        b=parametrizations.spectral_norm(nn.Conv1d(6, 5, 1)),
        c=nn.Linear(5, 2),
    ), torch.randn(2, 3)


@case("6", unknown=("matrix_exp",))
def orthogonal() -> Built:
    return nn.Sequential(
        parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map="matrix_exp"), nn.ReLU(), nn.Linear(6, 2)
    ), torch.randn(2, 6)


@case("5", "4", "6")
def bilinear() -> Built:
    return Net(
        lambda s, x: s.c(s.m(s.a(x), s.b(x))),
        a=nn.Linear(3, 5),
        b=nn.Linear(3, 4),
        m=nn.Bilinear(5, 4, 6),
        c=nn.Linear(6, 2),
    ), torch.randn(2, 3)


@case("6")
def prelu() -> Built:
    return nn.Sequential(nn.Linear(3, 6), nn.PReLU(6), nn.Linear(6, 2)), torch.randn(16, 3)


@case("6", "5")
def rms_norm() -> Built:
    return nn.Sequential(
        nn.Linear(3, 6), nn.RMSNorm(6), nn.Linear(6, 5), nn.RMSNorm(5, elementwise_affine=False), nn.Linear(5, 2)
    ), torch.randn(2, 3)


@case("3", "5 in 3", "8", "8")
def mixture_of_experts() -> Built:
    def forward(s, x):
        x = s.e(x)
        share = s.router(x).softmax(-1)
        hidden = F.gelu(torch.einsum("bd,edh->beh", x, s.up) + s.bias)
        return s.r(torch.einsum("beh,ehd,be->bd", hidden, s.down, share))

    return Net(
        forward,
        e=nn.Linear(4, 8),
        router=nn.Linear(8, 3),
        up=weight(3, 8, 5),
        bias=weight(3, 5),
        down=weight(3, 5, 8),
        r=nn.Linear(8, 2),
    ), torch.randn(2, 4)


@case("3", "5 in 3")
def mixture_of_experts_bmm() -> Built:
    def forward(s, x):
        share = s.router(x).softmax(-1)
        hidden = F.gelu(torch.bmm(x.expand(3, *x.shape), s.up))
        return (torch.bmm(hidden, s.down) * share.t()[:, :, None]).sum(0)

    return Net(forward, router=nn.Linear(8, 3), up=weight(3, 8, 5), down=weight(3, 5, 8)), torch.randn(2, 8)


@case("5", "5", "5")
def mixture_of_experts_listed() -> Built:
    def forward(s, x):
        share = s.router(x).softmax(-1)
        return sum(share[:, [i]] * d(F.relu(u(x))) for i, (u, d) in enumerate(zip(s.ups, s.downs, strict=True)))

    return Net(
        forward,
        router=nn.Linear(8, 3),
        ups=nn.ModuleList(nn.Linear(8, 5) for _ in range(3)),
        downs=nn.ModuleList(nn.Linear(5, 2) for _ in range(3)),
    ), torch.randn(2, 8)


@case("7", unknown=("linalg_inv",))
def unknown_operation() -> Built:
    return Net(
        lambda s, x: s.c(
            F.relu(s.b(torch.linalg.inv(s.a(x).view(-1, 3, 3) + 4 * torch.eye(3, dtype=x.dtype)).flatten(1)))
        ),
        a=nn.Linear(3, 9),
        b=nn.Linear(9, 7),
        c=nn.Linear(7, 2),
    ), torch.randn(2, 3)


@case("6")
def batch_of_one() -> Built:
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(1, 3)


@case()
def width_of_one() -> Built:
    return nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)), torch.randn(2, 3)


@case("6")
def unused_parameters() -> Built:
    return Net(
        lambda s, x: s.b(F.relu(s.a(x))), a=nn.Linear(3, 6), idle=nn.Linear(4, 5), b=nn.Linear(6, 2)
    ), torch.randn(2, 3)


@case("6", "5")
def nested_inputs() -> Built:
    return Net(
        lambda s, pair, more: s.c(F.relu(s.a(pair[0]) + s.a(pair[1]))) + s.d(F.relu(s.b(more["x"]))),
        a=nn.Linear(3, 6),
        b=nn.Linear(4, 5),
        c=nn.Linear(6, 2),
        d=nn.Linear(5, 2),
    ), ((torch.randn(2, 3), torch.randn(2, 3)), {"x": torch.randn(2, 4)})


@case("6")
def keyword_inputs() -> Built:
    return Net(lambda s, *, x: s.b(F.relu(s.a(x))), a=nn.Linear(3, 6), b=nn.Linear(6, 2)), {"x": torch.randn(2, 3)}


@case("6", "5")
def several_outputs() -> Built:
    def forward(s, x):
        h = F.relu(s.a(x))
        return {"logits": s.b(h), "classes": s.b(h).argmax(-1), "more": (s.d(F.relu(s.c(x))), None, 3)}

    return Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 2), c=nn.Linear(3, 5), d=nn.Linear(5, 2)), torch.randn(2, 3)


@case("3", "6")
def lstm_over_made_steps() -> Built:
    return Net(
        lambda s, x: s.b(s.a(s.e(x).view(-1, 4, 3))[0][:, -1]),
        e=nn.Linear(3, 12),
        a=nn.LSTM(3, 6, batch_first=True),
        b=nn.Linear(6, 2),
    ), torch.randn(2, 3)


@case("5")
def stacked_experts_by_index() -> Built:
    def forward(s, x):
        share = s.router(x).softmax(-1)
        return sum(share[:, [i]] * (F.relu(x @ s.up[i] + s.bias[i]) @ s.down[i]) for i in range(3))

    return Net(
        forward, router=nn.Linear(8, 3), up=weight(3, 8, 5), bias=weight(3, 5), down=weight(3, 5, 2)
    ), torch.randn(2, 8)


@case("4")
def stacked_layers_by_index() -> Built:
    def forward(s, x):
        x = s.i(x)
        for k in range(2):
            x = F.relu(x @ s.w[k])
        return s.o(x)

    return Net(forward, i=nn.Linear(3, 4), w=weight(2, 4, 4), o=nn.Linear(4, 2)), torch.randn(2, 3)


@case("5")
def normalised_rows_of_a_weight() -> Built:
    return Net(
        lambda s, x: F.linear(F.normalize(F.relu(s.a(x)), dim=1), F.normalize(s.w, dim=1)),
        a=nn.Linear(3, 5),
        w=weight(4, 5),
    ), torch.randn(2, 3)


@case("5")
def sizes_of_zero_initialised_layers() -> Built:
    net = Net(lambda s, x: s.b(F.relu(s.a(x))), a=nn.Linear(3, 5), b=nn.Linear(5, 2))
    nn.init.zeros_(net.b.weight)
    return net, torch.randn(2, 3)

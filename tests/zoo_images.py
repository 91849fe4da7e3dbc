"""Convolutions, their norms and what joins their channels."""

import torch
import torch.nn.functional as F
from torch import nn

from zoo import Built, Net, case


@case("4", "7")
def flatten_after_conv() -> Built:
    return Net(
        lambda s, x: s.b(F.relu(s.a(F.relu(s.conv(x)).flatten(1)))),
        conv=nn.Conv2d(1, 4, 3),
        a=nn.Linear(36, 7),
        b=nn.Linear(7, 2),
    ), torch.randn(2, 1, 5, 5)


@case("4")
def channels_last() -> Built:
    net = Net(
        lambda s, x: s.a(F.relu(s.conv(x)).permute(0, 2, 3, 1).reshape(len(x), -1)),
        conv=nn.Conv2d(1, 4, 3),
        a=nn.Linear(36, 2),
    )
    return net.to(memory_format=torch.channels_last), torch.randn(2, 1, 5, 5)


@case("3", "2 in 3", "3 in 3", "12")
def grouped_convolution() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 9, 1, groups=3),
        nn.ReLU(),
        nn.Conv2d(9, 12, 1),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    ), torch.randn(2, 1, 5, 5)


@case("6")
def depthwise_convolution() -> Built:
    return nn.Sequential(nn.Conv1d(1, 6, 3), nn.Conv1d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv1d(6, 2, 1)), torch.randn(
        2, 1, 9
    )


@case("6", "2 in 6")
def depthwise_multiplier() -> Built:
    return nn.Sequential(
        nn.Conv1d(1, 6, 3), nn.Conv1d(6, 12, 3, groups=6), nn.ReLU(), nn.Conv1d(12, 2, 1)
    ), torch.randn(2, 1, 9)


@case("3", "2 in 3", "4 in 3", "5")
def transposed_convolution() -> Built:
    return nn.Sequential(
        nn.ConvTranspose2d(1, 6, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 12, 2, groups=3),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 5, 2),
        nn.ReLU(),
        nn.Conv2d(5, 2, 1),
    ), torch.randn(2, 1, 3, 3)


@case("3")
def pixel_shuffle() -> Built:
    return nn.Sequential(nn.Conv2d(1, 12, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(3, 2, 1)), torch.randn(
        2, 1, 5, 5
    )


@case("3")
def pixel_unshuffle() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.PixelUnshuffle(2), nn.ReLU(), nn.Conv2d(12, 2, 1)
    ), torch.randn(2, 1, 6, 6)


@case("2 in 3")
def channel_shuffle() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 6, 1), nn.ReLU(), nn.ChannelShuffle(3), nn.Conv2d(6, 6, 1, groups=3), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ), torch.randn(2, 1, 4, 4)


@case("3", "2 in 3")
def group_norm() -> Built:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 2, 1)), torch.randn(2, 1, 5, 5)


@case("6")
def instance_norm() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ), torch.randn(2, 1, 5, 5)


@case("6")
def instance_norm_plain() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nn.Conv2d(6, 2, 1)
    ), torch.randn(2, 1, 5, 5)


@case()
def local_response_norm() -> Built:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.LocalResponseNorm(3), nn.Conv2d(6, 2, 1)), torch.randn(2, 1, 5, 5)


@case("6", "4")
def squeeze_excite() -> Built:
    def forward(s, x):
        x = s.stem(x)
        gate = s.up(F.relu(s.down(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return s.out(x * gate)

    return Net(
        forward, stem=nn.Conv2d(1, 6, 3), down=nn.Conv2d(6, 4, 1), up=nn.Conv2d(4, 6, 1), out=nn.Conv2d(6, 2, 1)
    ), torch.randn(2, 1, 5, 5)


@case("4", "3", "5")
def dense_net() -> Built:
    def forward(s, x):
        a = s.stem(x)
        b = torch.cat([a, s.one(F.relu(s.bn1(a)))], 1)
        c = torch.cat([b, s.two(F.relu(s.bn2(b)))], 1)
        return s.fc(F.relu(s.bn3(c)).mean((2, 3)))

    return Net(
        forward,
        stem=nn.Conv2d(1, 4, 3),
        bn1=nn.BatchNorm2d(4),
        one=nn.Conv2d(4, 3, 3, padding=1),
        bn2=nn.BatchNorm2d(7),
        two=nn.Conv2d(7, 5, 3, padding=1),
        bn3=nn.BatchNorm2d(12),
        fc=nn.Linear(12, 2),
    ), torch.randn(2, 1, 5, 5)


@case("4", "6", "3")
def u_net() -> Built:
    def forward(s, x):
        a = F.relu(s.down(x))
        b = F.relu(s.mid(F.max_pool2d(a, 2)))
        b = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        return s.out(F.relu(s.up(torch.cat([a, b], 1))))

    return Net(
        forward,
        down=nn.Conv2d(1, 4, 3, padding=1),
        mid=nn.Conv2d(4, 6, 3, padding=1),
        up=nn.Conv2d(10, 3, 3, padding=1),
        out=nn.Conv2d(3, 2, 1),
    ), torch.randn(2, 1, 6, 6)


@case("4", "2", "2", "8")
def zero_padded_shortcut() -> Built:
    def forward(s, x):
        a = F.relu(s.stem(x))
        return s.fc((F.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + s.b(F.relu(s.a(a)))).mean((2, 3)))

    return Net(
        forward,
        stem=nn.Conv2d(1, 4, 3, padding=1),
        a=nn.Conv2d(4, 8, 3, 2, 1),
        b=nn.Conv2d(8, 8, 3, padding=1),
        fc=nn.Linear(8, 2),
    ), torch.randn(2, 1, 6, 6)


@case("3", "3 in 3", "3 in 3")
def channel_shuffle_square() -> Built:
    return nn.Sequential(
        nn.Conv2d(1, 9, 1), nn.ReLU(), nn.ChannelShuffle(3), nn.Conv2d(9, 9, 1, groups=3), nn.Conv2d(9, 2, 1)
    ), torch.randn(2, 1, 4, 4)


@case("6")
def conv_patches() -> Built:
    return Net(
        lambda s, x: s.o(F.unfold(F.relu(s.c(x)), 2).sum(-1)), c=nn.Conv2d(1, 6, 2), o=nn.Linear(24, 2)
    ), torch.randn(2, 1, 4, 4)

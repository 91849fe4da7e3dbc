"""M′ in closed form and by vector-Jacobian products, on one thread: a ReLU layer, and the digits CNN's second one."""

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from dialogue import ROOT, serve
from torch import Tensor, nn

SAMPLES, WIDTH = 4096, 256
IMAGES = 16  # the loop takes 2048 backward passes, one for each channel and position


@cache
def relu() -> Any:
    """ReLU(Linear(256 → 256)) over 4096 samples, drawn."""
    random = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Identity(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    nn.init.normal_(net[1].weight, std=WIDTH**-0.5, generator=random)
    return chain(net, torch.randn(SAMPLES, WIDTH, generator=random), ["0", "2"])


@cache
def convolution() -> Any:
    """The first convolution's output to the second's of the shipped CNN, 32 channels of 8×8, over digits."""
    sys.path.insert(0, str(ROOT / "data"))
    import architectures
    from safetensors.torch import load_file
    from sklearn.datasets import load_digits

    net = architectures.CNN(32)
    net.load_state_dict(load_file(ROOT / "data" / "checkpoints" / "digits-cnn32-seed0.safetensors"))
    return chain(net, torch.from_numpy(load_digits().images[:IMAGES, None]) / 16, ["conv1", "conv2"])


def chain(net: nn.Module, inputs: Tensor, layers: list[str]) -> Any:
    from workbench.runtime.cut_test import layer_chain

    return layer_chain(net, [inputs], layers, device="cpu")


def closed(made: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """Recognising, verifying and computing; the matrix is kept for `difference`."""

    def run() -> dict[str, Any]:
        from workbench.degeneracy.closed_form import closed_form

        found, begin = made(), time.process_time()
        with found.lent():
            source, target = found.cuts[:2]
            form = closed_form(found, source, target, next(found.batches()))
            KEPT[made.__name__, "closed"] = form.gram(found, None).matrix
        return {"cpu_seconds": time.process_time() - begin, "pattern": form.pattern}

    return run


def exact(made: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """A backward pass for each direction and position."""

    def run() -> dict[str, Any]:
        from workbench.degeneracy.gradients import gradient_gram

        found, begin = made(), time.process_time()
        with found.lent():
            KEPT[made.__name__, "exact"] = gradient_gram(found, *found.cuts[:2], None).matrix
        return {"cpu_seconds": time.process_time() - begin}

    return run


def difference(made: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
    """Relative difference of the two matrices in the Frobenius norm."""

    def run() -> dict[str, Any]:
        ours, theirs = KEPT[made.__name__, "closed"], KEPT[made.__name__, "exact"]
        return {"difference": float((ours - theirs).norm() / theirs.norm())}

    return run


KEPT: dict[tuple[str, str], Tensor] = {}

if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    names = {"closed": closed, "exact": exact, "difference": difference}
    serve({f"{name} {made.__name__}": ask(made) for name, ask in names.items() for made in (relu, convolution)})

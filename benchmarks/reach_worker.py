"""What the degeneracy primitives take on real networks: MiniLM's Grams, the digits CNN's basis, sliders, memory."""

import resource
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from dialogue import ROOT, serve
from minilm import minilm_file
from torch import Tensor, nn

import workbench as wb

sys.path.insert(0, str(ROOT / "data"))
import build  # noqa: E402 - data/ is no package

TOKENS, LENGTH, BATCH = 10_240, 128, 16
SLIDERS = {"digits-mlp512": "3", "digits-cnn32": "fc1", "modular-addition": "resid_mid"}
SAMPLES = 360  # that a slider evaluates: the digits' test images, and as many sums


@cache
def minilm() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    from transformers import BertConfig, BertModel

    module = BertModel(BertConfig.from_pretrained(minilm_file().parent), add_pooling_layer=False).eval()
    stored = wb.load(minilm_file())
    module.load_state_dict({name: stored[name] for name in module.state_dict() if name in stored}, strict=False)
    ids = torch.randint(1000, 20000, (TOKENS // LENGTH, LENGTH), generator=torch.Generator().manual_seed(0))
    return module, [{"input_ids": part} for part in ids.split(BATCH)]


def plain() -> dict[str, Any]:
    """The forward pass alone."""
    module, batches = minilm()
    begin = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            module(**batch)
    return {"seconds": time.perf_counter() - begin}


def grams() -> dict[str, Any]:
    """The same with the covariances of the residual stream after every block."""
    module, batches = minilm()
    begin = time.perf_counter()
    found = wb.activations(module, batches, ["embeddings", "encoder.layer.?"], device="cpu")
    return {"seconds": time.perf_counter() - begin, "samples": found.frame()["samples"].tolist()}


def network(name: str) -> tuple[nn.Module, list[Tensor], Any]:
    recipe = build.RECIPES[name]
    split = recipe.split(recipe.input_shape)
    module = recipe.module()
    module.load_state_dict(dict(wb.load(build.CHECKPOINTS / f"{name}-seed0.safetensors")))
    return module, [split.train_x], split


def basis() -> dict[str, Any]:
    """The local interaction basis of the digits CNN over all its training images."""
    module, data, _ = network("digits-cnn32")
    begin = time.perf_counter()
    found = wb.interaction_basis(module, data, device="cpu")
    return {"seconds": time.perf_counter() - begin, "nodes": [found.nodes(layer) for layer in found.layers]}


@cache
def sliders(name: str) -> Any:
    module, data, split = network(name)
    test = [(split.test_x[:SAMPLES], split.test_y[:SAMPLES])]
    layers = ["resid_mid", "resid_post"] if name == "modular-addition" else [SLIDERS[name]]
    found = wb.interaction_basis(module, [data[0][:600]], layers, device="cpu")
    graph = wb.interaction_graph(module, [data[0][:100]], found)
    return wb.evaluator(module, test, "cross_entropy", device="cpu"), found, graph


def slider(name: str, unit: str) -> Any:
    def run() -> dict[str, Any]:
        evaluator, found, graph = sliders(name)
        layer = SLIDERS[name]
        chosen = graph if unit == "edges" else None
        kept = found.predicted_nodes(layer) if unit == "nodes" else 8 * found.predicted_nodes(layer)
        wb.ablated(evaluator, found, layer, kept, graph=chosen)
        begin = time.perf_counter()
        wb.ablated(evaluator, found, layer, kept, graph=chosen)
        return {"seconds": time.perf_counter() - begin, "kept": kept}

    return run


class Drawn:
    """Batches that are drawn as they are walked, so that none of them stays."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        for seed in range(self.batches):
            yield torch.randn(512, 256, generator=torch.Generator().manual_seed(seed))


def memory(batches: int) -> Any:
    def run() -> dict[str, Any]:
        net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
        found = wb.interaction_basis(net, Drawn(batches), device="cpu")
        wb.degeneracy(net, Drawn(batches), device="cpu")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"megabytes": peak, "samples": int(found.frame("layers")["samples"][0])}

    return run


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    commands = {"plain": plain, "grams": grams, "basis": basis}
    commands |= {f"slider {name} {unit}": slider(name, unit) for name in SLIDERS for unit in ("nodes", "edges")}
    serve(commands | {f"memory {batches}": memory(batches) for batches in (8, 64)})

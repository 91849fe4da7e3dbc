"""Evaluation, captured outputs and batch-norm statistics: numbers by hand, and a module that is as it was."""

import copy
import doctest
import importlib
import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import workbench as wb
from workbench import runtime
from workbench.runtime import EvaluationError, captured

evaluator = partial(runtime.evaluator, device="cpu")  # the oracles compute there
reset_statistics = partial(runtime.reset_statistics, device="cpu")


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, dropout, an operation in place and a head."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(4 * 9, 3))
    for index, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_tensor(*tensor.shape, seed=100 * seed + index).abs() / 4 + 0.1)
    return module


def images(sizes: tuple[int, ...] = (4, 4, 2)) -> list[tuple[Tensor, Tensor]]:
    return [(random_tensor(n, 1, 5, 5, seed=i), torch.arange(n) % 3) for i, n in enumerate(sizes)]


def by_hand(module: nn.Module, data: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Cross entropy and accuracy of a deep copy over all samples at once, by numpy in float64."""
    with torch.no_grad():
        outputs = copy.deepcopy(module).eval()(torch.cat([x for x, _ in data])).double().numpy()
    targets = torch.cat([y for _, y in data]).numpy()
    logs = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    chosen = logs[np.arange(len(targets)), targets]
    return {"loss": -chosen.mean(), "accuracy": (outputs.argmax(1) == targets).mean()}


def state(module: nn.Module) -> tuple[Any, ...]:
    """Everything of a module that must be as before: values, identities, modes, flags, gradients, hooks, attributes."""
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return (
        [(name, id(t), t.requires_grad, None if t.grad is None else id(t.grad), t.tolist()) for name, t in tensors],
        [(part.training, len(part._forward_hooks), list(vars(part))) for part in module.modules()],
        [(name, id(value)) for part in module.modules() for name, value in vars(part).items()],
    )


def draws() -> tuple[Any, ...]:
    """The global random states."""
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


class Failing(nn.Module):
    """Draws random numbers, writes into a buffer, and fails in its third call."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()
        self.register_buffer("seen", torch.zeros(()))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.last = x
        torch.rand(3), random.random(), np.random.rand(2)  # noqa: NPY002
        if self.seen == 3:
            raise ValueError("no third batch")
        return self.inner(x)  # type: ignore[no-any-return]


def test_batches_count_by_their_size() -> None:
    module = nn.Linear(1, 1, bias=False)
    data = [(torch.ones(3, 1), torch.zeros(3, 1)), (torch.ones(1, 1), torch.full((1, 1), 6.0))]
    value = evaluator(module, data, "mse", device="cpu")({"weight": torch.tensor([[2.0]])})
    assert value == {"loss": (3 * 4 + 1 * 16) / 4}


def test_cross_entropy_and_accuracy_are_those_of_all_samples_at_once() -> None:
    module, data = net(), images()
    assert evaluator(module, data, "cross_entropy")() == pytest.approx(by_hand(module, data), rel=1e-6)


def test_other_weights_give_what_loading_them_into_a_copy_gives() -> None:
    module, other, data = net(0), net(1), images()
    evaluate = evaluator(
        module, DataLoader(TensorDataset(*map(torch.cat, zip(*data, strict=True))), 4), "cross_entropy"
    )
    loaded = copy.deepcopy(module)
    loaded.load_state_dict(other.state_dict())
    own = evaluate()
    assert evaluate(other.state_dict()) == pytest.approx(by_hand(loaded, data), rel=1e-6)
    assert evaluate(wb.load(other)) == evaluate(other.state_dict()) == evaluator(other, data, "cross_entropy")()
    assert evaluate() == own != evaluate(other.state_dict())


@pytest.mark.parametrize("save", [torch.save, save_file])
def test_weights_from_a_file_and_with_a_prefix_removed(save: Callable[..., object], tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = net(0)

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)  # type: ignore[no-any-return]

    other, data, path = net(1), images(), tmp_path / f"saved.{'pt' if save is torch.save else 'safetensors'}"
    save({f"module.{name}": tensor for name, tensor in other.state_dict().items()}, path)
    weights = wb.load(path)
    assert "0.weight" in weights
    expected = evaluator(other, data, "cross_entropy")()
    assert evaluator(Wrapper(), data, "cross_entropy")(weights) == expected
    assert evaluator(net(0), data, "cross_entropy")(weights) == expected


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_as_before(training: bool) -> None:
    module, data = net(), images()
    module.train(training)
    module.insert(0, nn.ReLU(inplace=True))  # would write into the data
    module[2].eval()  # a frozen layer in a training network
    module[1].weight.requires_grad_(False)
    module[6](torch.ones(1, 36)).sum().backward()
    module[6].register_forward_hook(lambda *_: None)
    before, inputs = state(module), [x.clone() for x, _ in data]
    weights = {name: 2 * tensor for name, tensor in module.state_dict().items()}
    evaluator(module, data, "cross_entropy")(weights)
    reset_statistics(module, data)
    reset_statistics(module, data, weights=weights)
    assert state(module) == before
    assert all(torch.equal(a, b) for a, (b, _) in zip(inputs, data, strict=True))


@pytest.mark.parametrize("run", [lambda m, d: evaluator(m, d, "cross_entropy")(), reset_statistics])
def test_the_module_is_as_before_after_a_batch_that_fails(run: Callable[..., object]) -> None:
    module, data = Failing(), images()
    before, drawn = state(module), draws()
    with pytest.raises(
        EvaluationError, match=r"batch 2, counted from 0 \(\[2, 1, 5, 5\], \[2\]\): .*no third"
    ) as caught:
        run(module, data)
    assert draws() == drawn
    assert state(module) == before
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value.__cause__, ValueError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.batch) == (str(caught.value), 2)


@pytest.mark.parametrize("run", [lambda m, d: evaluator(m, d, "cross_entropy")(), reset_statistics])
def test_random_states_are_as_before(run: Callable[..., object]) -> None:
    module, samples = Failing(), TensorDataset(*images((4,))[0])
    loader = DataLoader(samples, 2, shuffle=True)
    drawn = draws()
    run(module, loader)
    assert draws() == drawn
    next(iter(loader))
    assert draws() != drawn


def test_weights_handed_over_are_not_written_into() -> None:
    module, weights = Failing(), Failing().state_dict()
    evaluator(module, images((2, 2)), "cross_entropy")(weights)
    reset_statistics(module, images((2, 2)), weights=weights)
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), Failing().state_dict().values(), strict=True))


def test_cancelling_is_passed_on_and_leaves_the_module() -> None:
    module = net()
    before = state(module)

    def stop(*_: Tensor) -> Tensor:
        raise wb.Cancelled

    with pytest.raises(wb.Cancelled):
        evaluator(module, images(), stop)()
    assert state(module) == before


def test_dropout_is_off_and_gradients_too() -> None:
    inner = nn.Sequential(nn.Sequential(nn.Dropout(0.9)))
    outputs: list[Tensor] = []

    def keep(output: Tensor, target: Tensor) -> Tensor:
        outputs.append(output)
        return output.mean()

    module = nn.Sequential(inner, nn.Linear(8, 8, bias=False))
    assert evaluator(module, [(torch.ones(5, 8), torch.ones(5))], keep)({"1.weight": torch.eye(8)}) == {"loss": 1.0}
    assert not outputs[0].requires_grad and inner.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_module_stays_on_the_cpu_while_cuda_evaluates() -> None:
    module, data, weights = net(), images((4, 4)), net(1).state_dict()
    before, drawn = state(module), torch.cuda.get_rng_state()
    on_cuda = runtime.evaluator(module, data, "cross_entropy")
    assert on_cuda.device.type == "cuda"
    assert on_cuda(weights) == pytest.approx(evaluator(module, data, "cross_entropy")(weights), rel=1e-2)
    statistics, expected = runtime.reset_statistics(module, data), reset_statistics(module, data)
    torch.testing.assert_close(statistics, expected, rtol=1e-2, atol=1e-3)
    assert state(module) == before and torch.equal(torch.cuda.get_rng_state(), drawn)


class Tied(nn.Module):
    """One tensor under two names, and one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(5, 3), nn.Linear(3, 3)
        self.head, self.again = nn.Linear(3, 5, bias=False), self.mix
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.again(self.mix(self.embedding(tokens))))  # type: ignore[no-any-return]


def test_tied_tensors_and_shared_modules() -> None:
    module, other = Tied(), Tied()
    data = [(torch.arange(5), torch.arange(5))]
    evaluate, before = evaluator(module, data, "cross_entropy"), state(module)
    expected = pytest.approx(by_hand(other, data), rel=1e-6)
    weights = dict(other.state_dict())
    assert evaluate(weights) == expected
    once = {name: tensor for name, tensor in weights.items() if not name.startswith(("head", "again"))}
    assert evaluate(once) == expected
    late = {name: tensor for name, tensor in weights.items() if not name.startswith(("embedding", "mix"))}
    assert evaluate(late) == expected
    assert evaluate({name: tensor.clone() for name, tensor in weights.items()}) == expected
    weights["head.weight"] = weights["head.weight"] + 1
    with pytest.raises(wb.ArgumentError, match="'head.weight'. differ, but are one tensor"):
        evaluate(weights)
    assert state(module) == before


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_keep_their_own_list_of_weights(kind: type[nn.Module]) -> None:
    class Last(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.layer = kind(2, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1]  # type: ignore[no-any-return]

    module, other, data = Last(0), Last(1), [(random_tensor(4, 5, 2), torch.tensor([0, 1, 2, 0]))]
    before = state(module)
    assert evaluator(module, data, "cross_entropy")(other.state_dict()) == pytest.approx(by_hand(other, data), rel=1e-6)
    assert state(module) == before


def test_nothing_is_copied_that_fits() -> None:
    module, given, places = nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, []
    module.register_forward_hook(lambda part, *_: places.append((part.weight.data_ptr(), part.bias.data_ptr())))
    evaluator(module, [(torch.ones(2, 3), torch.ones(2, 2))], "mse", device="cpu")(given)
    assert places == [(given["weight"].data_ptr(), given["bias"].data_ptr())]


def test_half_precision_weights_in_a_float_module() -> None:
    module, data = net(), images()
    half = {k: t.bfloat16() if t.is_floating_point() else t for k, t in net(1).state_dict().items()}
    loaded = copy.deepcopy(module)
    loaded.load_state_dict(half)
    assert evaluator(module, data, "cross_entropy")(half) == pytest.approx(by_hand(loaded, data), rel=1e-6)
    assert half["0.weight"].dtype == torch.bfloat16 and module[0].weight.dtype == torch.float32


def test_a_module_without_values_takes_those_that_are_given() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 3)
    other, data = nn.Linear(2, 3), [(random_tensor(4, 2), torch.tensor([0, 1, 2, 0]))]
    evaluate = evaluator(module, data, "cross_entropy")
    assert evaluate(other.state_dict()) == pytest.approx(by_hand(other, data), rel=1e-6)
    with pytest.raises(wb.ArgumentError, match="'weight' is on the meta device and has no values: pass weights"):
        evaluate()


def test_a_buffer_that_is_not_saved_may_be_left_out_or_given() -> None:
    class Scaled(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * x

    evaluate = evaluator(Scaled(), [(torch.ones(2, 3), torch.zeros(2, 3))], "mse")
    assert evaluate({}) == evaluate() == {"loss": 4.0}
    assert evaluate({"scale": torch.tensor(3.0)}) == {"loss": 9.0}


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, nn.TransformerEncoderLayer])
def test_the_fast_paths_of_attention_see_the_weights(kind: type[nn.Module]) -> None:
    class First(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.layer = kind(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x, x, x)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
            return y[:, 0]  # type: ignore[no-any-return]

    module, other, data = First(0), First(1), [(random_tensor(4, 5, 4), torch.tensor([0, 1, 2, 3]))]
    assert evaluator(module, data, "cross_entropy")(other.state_dict()) == pytest.approx(by_hand(other, data), rel=1e-6)


class FakeModelOutput(dict[str, Tensor]):
    """As transformers' ModelOutput: a mapping with attributes."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


class FakeTransformer(nn.Module):
    """Takes named arguments, and no labels."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor, return_dict: bool) -> FakeModelOutput:
        embedded = self.embedding(input_ids) * attention_mask[..., None]
        return FakeModelOutput(hidden=embedded, logits=self.head(embedded.sum(1)))


def test_batches_that_are_dicts() -> None:
    module = FakeTransformer()
    ids, mask, labels = torch.arange(6).reshape(3, 2), torch.tensor([[1, 0], [1, 1], [1, 1]]), torch.tensor([0, 1, 1])
    batch = {"input_ids": ids, "attention_mask": mask, "return_dict": True, "labels": labels}
    with torch.no_grad():
        logits = module.head((module.embedding(ids) * mask[..., None]).sum(1))
    value = evaluator(module, [batch], "cross_entropy")()
    assert value["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-6)
    assert set(batch) == {"input_ids", "attention_mask", "return_dict", "labels"}
    del batch["labels"]
    with pytest.raises(EvaluationError, match="needs a tensor of targets under 'labels'; got the keys"):
        evaluator(module, [batch], "cross_entropy")()


@pytest.mark.parametrize(
    "wrapped", [lambda y: (y, None), lambda y: [y], lambda y: SimpleNamespace(logits=y), lambda y: {"hidden": y}]
)
def test_outputs_that_are_no_tensor(wrapped: Callable[[Tensor], object]) -> None:
    module = type("Wrapping", (nn.Module,), {"forward": lambda self, x: wrapped(2 * x)})()
    assert evaluator(module, [(torch.ones(2, 3), torch.zeros(2, 3))], "mse")() == {"loss": 4.0}


def test_metrics_by_name_and_by_function() -> None:
    data = images()

    def largest(outputs: Tensor, targets: Tensor) -> float:
        return float(targets.max())

    evaluate = evaluator(net(), data, "cross_entropy", {"top1": "accuracy", "largest": largest})
    value = evaluate()
    assert value["top1"] == evaluator(net(), data, "cross_entropy", "accuracy")()["accuracy"]
    assert value["largest"] == pytest.approx((4 * 2 + 4 * 2 + 2 * 1) / 10)
    assert list(evaluator(net(), data, "cross_entropy", {})()) == ["loss"]
    assert "loss, top1, largest (cross_entropy)" in repr(evaluate) and str(evaluate.device) in repr(evaluate)


def test_nan_is_shown_and_soft_targets_are_classes() -> None:
    data = [(torch.ones(2, 2), torch.eye(2)), (torch.full((1, 2), torch.nan), torch.eye(2)[:1])]
    value = evaluator(nn.Identity(), data, "cross_entropy")()
    assert np.isnan(value["loss"])
    assert evaluator(nn.Identity(), [(torch.eye(2), torch.eye(2))], "cross_entropy")()["accuracy"] == 1.0


NAMES = {
    "weights lack '0.bias', which Sequential has": lambda w: w.pop("0.bias"),
    r"weights lack '0.weight' \(and 8 more\)": lambda w: w.clear(),
    "weights have '7.bias', which Sequential has not": lambda w: w.update({"7.bias": torch.ones(3)}),
    r"weights\['5.bias'\] has the shape \[1\]: the module expects \[3\]": lambda w: w.update({"5.bias": torch.ones(1)}),
    r"weights\['5.bias'\] is torch.int8: the module has torch.float32": lambda w: w.update(
        {"5.bias": torch.ones(3).to(torch.int8)}
    ),
}

NAMES[r"weights\['5.bias'\] is torch.float8_e4m3fn"] = lambda w: w.update(
    {"5.bias": torch.ones(3).to(torch.float8_e4m3fn)}
)


@pytest.mark.parametrize("message", NAMES)
@pytest.mark.parametrize("opened", [dict, wb.load])
def test_weights_that_do_not_fit(message: str, opened: Callable[[Any], Any]) -> None:
    module, weights, calls = net(), dict(net(1).state_dict()), []
    module.register_forward_hook(lambda *_: calls.append(1))
    NAMES[message](weights)
    before = state(module)
    handed = opened(weights) if weights else weights  # wb.load refuses an empty mapping itself
    with pytest.raises(wb.ArgumentError, match=message):
        evaluator(module, images(), "cross_entropy")(handed)
    assert not calls and state(module) == before


def generator() -> Iterator[Any]:
    yield from images()


class Exhausted:
    """Looks like data that can be walked again, and is not."""

    def __init__(self) -> None:
        self.inner = generator()

    def __iter__(self) -> Iterator[Any]:
        return self.inner


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: generator(), "one-shot generator.*Pass something that can be walked again: a DataLoader, or list"),
        (lambda: iter(images()), "one-shot list_iterator"),
        (lambda: zip(*images(), strict=False), "one-shot zip"),
        (lambda: torch.ones(2, 1, 5, 5), r"data is one Tensor: expected an iterable of batches; pass \[data\]"),
        (lambda: {"input_ids": torch.ones(1)}, "data is one dict"),
        (lambda: [], "data is empty"),
    ],
)
@pytest.mark.parametrize(
    "function", [lambda data: evaluator(net(), data, "cross_entropy"), lambda d: reset_statistics(net(), d)]
)
def test_data_that_cannot_be_walked_again(data: Any, message: str, function: Callable[[Any], object]) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        function(data())


def test_an_iterator_that_hides_is_found_when_it_is_empty() -> None:
    evaluate = evaluator(net(), Exhausted(), "cross_entropy")
    evaluate()
    with pytest.raises(wb.ArgumentError, match="data gave no batch: it is empty, or wraps an iterator"):
        evaluate()


SCRIPT = """
import json, torch
from torch import nn
from workbench.runtime import evaluator
data = [(torch.ones(2, 3), torch.tensor([0, 1]))]
samples = torch.utils.data.TensorDataset(torch.ones(2, 3))
linear, twice = nn.Linear(3, 2), lambda: data
codes = [
    "evaluator(linear, twice, 'mse')", "evaluator(linear, samples, 'mse')", "evaluator(linear, data, 'cross_entrpy')",
    "evaluator(linear, data, 'mse', {'loss': 'accuracy'})", "evaluator(linear, data, 'mse', ['accuracy'])",
    "evaluator(linear, data, 'mse', 'acc')", "evaluator({}, data, 'mse')", "evaluator(nn.LazyLinear(2), data, 'mse')",
    "evaluator(nn.DataParallel(linear), data, 'mse')", "evaluator(torch.jit.trace(linear, data[0][0]), data, 'mse')",
    "evaluator(linear, data, 'cross_entropy')('model.pt')", "evaluator(linear, data, 'mse')({'weight': 1, 'bias': 2})",
]
raised = []
import warnings
warnings.simplefilter("ignore")
for code in codes:
    try:
        raised.append(repr(eval(code)))
    except Exception as error:
        raised.append(f"{type(error).__name__}: {error}")
print(json.dumps(raised))
"""


def test_arguments_that_are_refused(unchecked: Callable[..., Any]) -> None:
    parts = [
        "data is function: expected a re-iterable of batches",
        "a data set of samples (TensorDataset): expected batches; pass DataLoader(data, 64)",
        "loss is 'cross_entrpy': expected 'cross_entropy' or 'mse', or a function (outputs, targets). Did you mean",
        "metrics has the name 'loss'",
        "metrics are list: expected a mapping",
        "metrics 'acc' is 'acc': expected 'accuracy'",
        "module is dict: expected an nn.Module",
        "uninitialised lazy parameter 'weight'",
        "nn.DataParallel, which computes on copies of it: pass module.module",
        "ScriptModule, whose weights cannot be exchanged",
        "weights are str: expected a mapping of names to tensors, such as wb.load(path)",
        "weights['weight'] is int: expected a tensor",
    ]
    raised = unchecked(SCRIPT)
    assert len(raised) == len(parts)
    for part, message in zip(parts, raised, strict=True):
        assert message.startswith("ArgumentError: ") and part in message, message


def broken() -> Iterator[Any]:
    yield images()[0]
    raise OSError("disk gone")


class Broken:
    """Data whose second batch cannot be loaded."""

    def __iter__(self) -> Iterator[Any]:
        return broken()


@pytest.mark.parametrize(
    ("data", "loss", "message"),
    [
        (Broken(), "mse", r"batch 1, counted from 0 \(not loaded\): loading it failed: OSError: disk gone"),
        ([(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2))], "mse", "batch 0.*expected a pair .inputs, targets."),
        ([torch.ones(2, 3)], "mse", "batch 0.*expected a pair .inputs, targets.*got Tensor"),
        ([(torch.ones(2, 3), torch.ones(2))], "mse", r"one shape; got \[2, 3\] and \[2\]"),
        ([(torch.ones(2, 3), torch.tensor([1, -100]))], "cross_entropy", "label -100, which torch ignores"),
        ([(torch.ones(2, 3), torch.ones(2, 3))], lambda x, y: (x - y).mean(1), r"loss gave \[2\]: expected one number"),
        ([(torch.ones(0, 3), torch.ones(0, 3))], "mse", "expected samples along the first axis"),
    ],
)
def test_batches_that_fail_are_named(data: Any, loss: Any, message: str) -> None:
    start = (
        evaluator(nn.Identity(), data, loss)
        if not isinstance(data, Broken)
        else evaluator(net(), data, "cross_entropy")
    )
    with pytest.raises(EvaluationError, match=message):
        start()


def test_batch_norm_statistics_are_the_mean_over_batches() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3), nn.Sequential(nn.BatchNorm1d(3)))
    data = [(3 * random_tensor(8, 3, seed=i) + i, torch.zeros(8)) for i in range(5)]
    module(data[0][0] + 7)  # statistics from before, which do not count
    statistics = reset_statistics(module, data)
    batches = np.stack([x.double().numpy() for x, _ in data])
    np.testing.assert_allclose(statistics["1.running_mean"], batches.reshape(-1, 3).mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["1.running_var"], batches.var(1, ddof=1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["2.0.running_mean"], 0, atol=1e-6)  # its input is normalised by the batch
    assert statistics["1.num_batches_tracked"] == 5 and module[1].momentum == 0.3
    reference = copy.deepcopy(module)
    torch.optim.swa_utils.update_bn(data, reference[1:])
    for name, tensor in statistics.items():
        torch.testing.assert_close(tensor, reference.state_dict()[name])
    assert set(statistics) == {name for name in module.state_dict() if "running" in name or "num_batches" in name}


def test_batch_norm_statistics_of_other_weights_and_of_layers_not_reached() -> None:
    module, other, data = net(0), net(1), images((4, 4))
    module.add_module("unused", nn.BatchNorm1d(2))
    module.forward = lambda x: nn.Sequential(*list(module)[:6])(x)  # type: ignore[method-assign]
    weights = {**other.state_dict(), **{k: t for k, t in module.state_dict().items() if k.startswith("unused")}}
    given = reset_statistics(module, data, weights=weights)
    own = reset_statistics(other, data)
    assert set(given) == set(own) and all(torch.equal(given[name], own[name]) for name in own)
    assert not torch.equal(own["1.running_mean"], reset_statistics(module, data)["1.running_mean"])


def test_batch_norm_statistics_of_nothing() -> None:
    assert reset_statistics(nn.Linear(2, 2), [torch.ones(3, 2)]) == {}
    assert reset_statistics(nn.BatchNorm1d(2, track_running_stats=False), [torch.ones(3, 2)]) == {}
    with pytest.raises(EvaluationError, match=r"batch 1.*\[1, 2\].*more than 1 value per channel"):
        reset_statistics(nn.BatchNorm1d(2), [torch.ones(3, 2), torch.ones(1, 2)])


def test_captured_outputs_are_those_of_the_layers() -> None:
    module, x = net().eval(), images()[0][0]
    module[1].register_forward_hook(lambda *_: None)
    with captured(module, ["1", "5", ""]) as outputs:
        assert outputs == {}
        result = module(x)
    torch.testing.assert_close(outputs["1"], module[1](module[0](x)))  # before the ReLU that works in place
    assert torch.equal(outputs["5"], result) and torch.equal(outputs[""], result)
    assert [len(part._forward_hooks) for part in module] == [0, 1, 0, 0, 0, 0]


def test_captured_takes_the_first_of_a_tuple_and_lets_gradients_through() -> None:
    module, x = nn.Sequential(nn.LSTM(2, 3)), random_tensor(4, 2)
    with captured(module, "0", copy=False) as outputs:
        result = module(x)[0]
    assert outputs["0"] is result
    assert torch.autograd.grad(result.sum(), outputs["0"])[0].tolist() == torch.ones(4, 3).tolist()


@pytest.mark.parametrize(("positions", "classes"), [((5,), 7), ((2, 3), 4), ((1,), 3), ((6,), 1)])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
def test_labels_of_positions_with_the_classes_last_or_second(
    positions: tuple[int, ...], classes: int, last: bool, kind: torch.dtype
) -> None:
    parts = []
    for seed, size in enumerate((4, 2)):
        random = torch.Generator().manual_seed(seed)
        logits = torch.randn(size, *positions, classes, generator=random, dtype=torch.float64)
        parts.append((logits, torch.randint(0, classes, (size, *positions), generator=random)))
    flat, labels = (torch.cat([part[place] for part in parts]) for place in (0, 1))
    flat, labels = flat.reshape(-1, classes), labels.reshape(-1)
    chosen = flat.log_softmax(-1)[torch.arange(len(flat)), labels]
    data = [(logits if last else logits.movedim(-1, 1), targets.to(kind)) for logits, targets in parts]
    value = evaluator(nn.Identity(), data, "cross_entropy")()
    assert value["loss"] == pytest.approx(-float(chosen.mean()), rel=1e-12, abs=1e-15)
    assert value["accuracy"] == pytest.approx(float((flat.argmax(-1) == labels).double().mean()), rel=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "accuracy"])
@pytest.mark.parametrize(
    ("outputs", "targets", "words"),
    [
        ((2, 3, 3), (2, 3), r"of outputs \[2, 3, 3\] with targets \[2, 3\]: axis 1 and the last could both be the"),
        ((2, 4, 4, 4), (2, 4, 4), "could both be the classes"),
        ((2, 3, 5), (2, 4), r"needs outputs .* got \[2, 3, 5\] and \[2, 4\] of torch.int64: reshape the targets"),
        ((2, 3), (2, 1), r"got \[2, 3\] and \[2, 1\]"),
        ((2,), (2,), r"got \[2\] and \[2\]"),
    ],
)
def test_labels_that_fit_no_axis_or_two_are_refused(name: str, outputs: Any, targets: Any, words: str) -> None:
    data = [(torch.zeros(outputs), torch.zeros(targets, dtype=torch.int64))]
    loss: Any = "cross_entropy" if name == "cross_entropy" else lambda o, t: 0.0
    with pytest.raises(runtime.EvaluationError, match=f"{name} {words}" if words[0] in "on" else words):
        evaluator(nn.Identity(), data, loss, {} if name == "cross_entropy" else name)()


def test_captured_removes_its_hooks_after_an_error_and_names_the_nearest() -> None:
    module = net()
    with pytest.raises(RuntimeError, match="stop"), captured(module, ["0", "5"]):
        raise RuntimeError("stop")
    with pytest.raises(wb.LayerNotFoundError, match="no submodule 'embeding'.*Did you mean 'embedding'"):
        with captured(Tied(), ["mix", "embeding"]):
            pass
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("name", ["evaluator", "hooks", "batch_norm", "batches", "borrowing"])
def test_examples(name: str) -> None:
    module = importlib.import_module(f"workbench.runtime.{name}")
    tried = doctest.testmod(module)
    assert not tried.failed
    assert tried.attempted or name in ("batches", "borrowing")

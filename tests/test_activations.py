"""Moments of activations: explicit matrices of all outputs at once, and a module that is as it was."""

import random
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, IterableDataset

import workbench as wb
from workbench import runtime
from workbench.runtime import EvaluationError, LayerMoments, captured
from workbench.runtime.activations import WIDEST, feature_axis

activation_moments = partial(runtime.activation_moments, device="cpu")  # the oracles compute there


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with weights that depend on the seed alone."""
    module.double()
    for index, tensor in enumerate(module.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(random_tensor(*tensor.shape, seed=1000 * seed + index).abs() / 4 + 0.1)
    return module


def cnn(seed: int = 0) -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.5)]
    return filled(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)), seed)


def images(sizes: tuple[int, ...] = (5, 5, 2)) -> list[tuple[Tensor, Tensor]]:
    return [(random_tensor(n, 2, 6, 6, seed=i), torch.arange(n)) for i, n in enumerate(sizes)]


def assert_are(layer: LayerMoments, samples: Tensor | np.ndarray) -> None:
    """The moments are those of the matrix of all samples."""
    matrix = np.asarray(samples, dtype=np.float64)
    assert layer.samples == len(matrix)
    np.testing.assert_allclose(layer.moments.mean, matrix.mean(0), rtol=1e-12, atol=1e-14)
    covariance = np.atleast_2d(np.cov(matrix.T, bias=True))
    np.testing.assert_allclose(layer.moments.covariance, covariance, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(layer.moments.gram, matrix.T @ matrix / len(matrix), rtol=1e-10, atol=1e-13)


def state(module: nn.Module) -> tuple[Any, ...]:
    """Everything that must be as before: values, identities, modes, hooks, attributes, random states, global flags.

    Python's own random state is looked at in `test_random_states_are_as_before`: here beartype draws from it.
    """
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return (
        [(name, id(t), t.requires_grad, None if t.grad is None else id(t.grad), t.tolist()) for name, t in tensors],
        [(part.training, len(part._forward_hooks), list(vars(part))) for part in module.modules()],
        [(name, id(value)) for part in module.modules() for name, value in vars(part).items()],
        [torch.get_rng_state().tolist(), str(np.random.get_state())],  # noqa: NPY002
        [torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()],
    )


# Numbers


def test_a_cnn_against_the_matrices_of_all_its_outputs() -> None:
    module, data = cnn(), images()
    found = activation_moments(module, data)
    assert list(found) == ["0", "1", "2", "3", "4", "5", "6"] and found.batches == 3 and not found.skipped
    x = torch.cat([x for x, _ in data])
    weight, bias = module[0].weight.detach(), module[0].bias.detach()  # type: ignore[index]
    conv = np.stack(
        [  # a convolution by its definition, position by position
            np.einsum("nijk,oijk->no", x[:, :, r : r + 3, c : c + 3].numpy(), weight.numpy()) + bias.numpy()
            for r in range(4)
            for c in range(4)
        ],
        1,
    ).reshape(-1, 4)
    assert_are(found["0"], conv)
    norm = module[1]  # type: ignore[index]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    normed = (conv - norm.running_mean.numpy()) * scale.detach().numpy() + norm.bias.detach().numpy()
    assert_are(found["1"], normed)  # as it was before the ReLU that works in place
    assert_are(found["2"], np.maximum(normed, 0))
    pooled = np.maximum(normed, 0).reshape(12, 2, 2, 2, 2, 4).max((2, 4))
    assert_are(found["3"], pooled.reshape(-1, 4))
    assert_are(found["4"], pooled.reshape(-1, 4))  # dropout is off
    flat = pooled.transpose(0, 3, 1, 2).reshape(12, 16)
    assert_are(found["5"], flat)
    head = module[6]  # type: ignore[index]
    assert_are(found["6"], flat @ head.weight.detach().numpy().T + head.bias.detach().numpy())
    layer = found["0"]
    assert (layer.features, layer.calls, layer.left_out) == (1, 3, 0)
    assert (layer.first_shape, layer.last_shape) == ((5, 4, 4, 4), (2, 4, 4, 4)) and found["6"].features == -1


def test_batches_do_not_matter_and_other_weights_are_taken() -> None:
    module, other, (x, _) = cnn(), cnn(1), images((12,))[0]
    whole, parts = activation_moments(other, [x]), activation_moments(module, x.split(5), weights=other.state_dict())
    for name in whole:
        torch.testing.assert_close(parts[name].moments.covariance, whole[name].moments.covariance, rtol=1e-10, atol=0)
    own = activation_moments(module, [x])
    assert not torch.allclose(own["6"].moments.mean, whole["6"].moments.mean)


class Encoder(nn.Module):
    """Takes the mask of Hugging Face's models, and has heads at the first step and at each."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.embedding = nn.Embedding(20, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head, self.pooler = nn.Linear(8, 3), nn.Linear(8, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=attention_mask == 0)
        return self.head(hidden), self.pooler(hidden[:, 0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize("nested", [True, False])
def test_a_padded_batch_gives_what_its_sequences_alone_give(dtype: torch.dtype, nested: bool) -> None:
    module = filled(Encoder(nested))
    ids = torch.randint(0, 20, (6, 7), generator=torch.Generator().manual_seed(0))
    lengths = [7, 3, 1, 5, 2, 7]
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).to(dtype)
    padded = [
        {"input_ids": ids[part], "attention_mask": mask[part], "labels": ids[part]} for part in (slice(4), slice(4, 6))
    ]
    alone = [
        {"input_ids": ids[row : row + 1, :length], "attention_mask": torch.ones(1, length)}
        for row, length in enumerate(lengths)
    ]
    before = state(module)
    found, expected = activation_moments(module, padded), activation_moments(module, alone)
    assert state(module) == before
    assert list(found) == list(expected) and {"encoder.layers.1.linear1", "encoder.layers.0.norm2"} < set(found)
    assert set(found.skipped) == {f"encoder.layers.{index}.self_attn.out_proj" for index in range(2)}
    for name in found:
        here, there = found[name], expected[name]
        assert here.samples == there.samples == (6 if name == "pooler" else 25)
        assert (here.left_out, there.left_out) == (0 if name == "pooler" else 42 - 25, 0)
        torch.testing.assert_close(here.moments.mean, there.moments.mean, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(here.moments.gram, there.moments.gram, rtol=1e-9, atol=1e-11)
    embedded = module.embedding.weight.detach()[ids[mask != 0]]  # type: ignore[union-attr]
    assert_are(found["embedding"], embedded)


def test_the_mask_is_for_steps_and_not_for_channels() -> None:
    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = filled(nn.Conv1d(3, 3, 1))

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            return self.conv(x)  # type: ignore[no-any-return]

    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])  # as many channels as steps
    found = activation_moments(Channels(), [{"x": random_tensor(2, 3, 3), "attention_mask": mask}])["conv"]
    assert (found.samples, found.left_out) == (6, 0)


class Shared(nn.Module):
    """One module under two names that runs twice, and an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = self.again = nn.Linear(3, 3)
        self.relu, self.alone = nn.ReLU(), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.mix(x)
        first += 100  # after the hook
        return self.relu(self.again(self.relu(first)))


def test_compiled_code_is_heard_too() -> None:
    """torch.compile makes code of the submodules that were there, which calls no hook that comes later."""
    module, x = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh())), random_tensor(6, 3)
    compiled = torch.compile(module, backend="eager")
    compiled(x)
    found = activation_moments(compiled, [x], ["_orig_mod.0"])["_orig_mod.0"]
    torch.testing.assert_close(found.moments.mean, module[0](x).mean(0))  # type: ignore[index]


def test_all_calls_of_a_shared_module_count_and_operations_in_place_do_not() -> None:
    module, (x, y) = filled(Shared()), (random_tensor(9, 3), random_tensor(4, 3, seed=1))
    found = activation_moments(module, [x, y])
    assert list(found) == ["mix", "relu"] and found["mix"].calls == 4
    weight, bias = (tensor.detach() for tensor in (module.mix.weight, module.mix.bias))  # type: ignore[union-attr]
    first = torch.cat([x, y]) @ weight.T + bias
    hidden = (first + 100).clamp(min=0)
    assert_are(found["mix"], torch.cat([first, hidden @ weight.T + bias]))
    both = activation_moments(module, [x, y], ["again", "mix"])
    assert list(both) == ["mix", "again"]
    for name in both:
        assert torch.equal(both[name].moments.gram, found["mix"].moments.gram)


def test_what_other_hooks_make_of_an_output_is_counted() -> None:
    module = nn.Sequential(nn.Identity())
    module[0].register_forward_hook(lambda part, inputs, output: 2 * output)
    assert_are(activation_moments(module, [torch.ones(3, 2), torch.zeros(1, 2)])["0"], [[2, 2]] * 3 + [[0, 0]])


@pytest.mark.parametrize(
    ("part", "shape", "axis"),
    [
        (nn.Conv1d(2, 3, 1), (5, 2, 4), 1),
        (nn.ConvTranspose2d(2, 3, 1), (5, 2, 4, 4), 1),
        (nn.Conv3d(2, 3, 1), (5, 2, 4, 4, 4), 1),
        (nn.BatchNorm1d(2), (5, 2), 1),
        (nn.InstanceNorm1d(2), (5, 2, 4), 1),
        (nn.GroupNorm(1, 2), (5, 2, 4), 1),
        (nn.AdaptiveAvgPool1d(1), (5, 2, 4), 1),
        (nn.Upsample(scale_factor=2), (5, 2, 4, 4), 1),
        (nn.ReLU(), (5, 2, 4, 4), 1),
        (nn.ReLU(), (5, 4, 2), -1),
        (nn.Linear(2, 3), (5, 4, 4, 2), -1),
        (nn.LayerNorm(2), (5, 4, 4, 2), -1),
        (nn.LSTM(2, 3), (5, 4, 2), -1),
    ],
)
def test_the_axis_of_the_features(part: nn.Module, shape: tuple[int, ...], axis: int) -> None:
    inputs = random_tensor(*shape)
    with torch.no_grad():
        output = part.double().eval()(inputs)
    output = output[0] if isinstance(output, tuple) else output
    found = activation_moments(part, [inputs])[""]
    assert found.features == feature_axis(part, output.ndim) == axis
    assert_are(found, np.moveaxis(output.numpy(), axis, -1).reshape(-1, output.shape[axis]))


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
def test_another_axis_of_features(axis: int) -> None:
    inputs = random_tensor(4, 3, 5)
    found = activation_moments(nn.Sequential(nn.Tanh()), [inputs], features={"0": axis})["0"]
    assert found.features == axis
    assert_are(found, np.moveaxis(inputs.tanh().numpy(), axis, -1).reshape(-1, inputs.shape[axis]))


def test_one_axis_is_features_where_it_is_said() -> None:
    module = nn.Sequential(nn.Flatten(0))
    assert "no axis beside the samples" in activation_moments(module, [torch.ones(2, 3)]).skipped["0"]
    found = activation_moments(module, [torch.ones(2, 3), torch.zeros(2, 3)], features={"0": 0})["0"]
    assert_are(found, [[1] * 6, [0] * 6])


def test_a_parametrised_layer_is_one_layer() -> None:
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))
    assert list(activation_moments(module, [torch.ones(2, 3)])) == ["0"]


def test_a_list_of_batches_is_enough_for_half_precision() -> None:
    inputs = (random_tensor(200, 4) * 10 + 300).to(torch.bfloat16)
    assert_are(activation_moments(nn.Identity(), inputs.split(60))[""], inputs.double())


# Choosing, skipping and refusing


def test_paths_globs_and_containers() -> None:
    module, data = nn.Sequential(nn.Sequential(nn.Tanh(), nn.ReLU()), nn.Tanh()), [torch.ones(2, 3)]
    assert list(activation_moments(module, data)) == ["0.0", "0.1", "1"]
    assert list(activation_moments(module, data, "0.*")) == ["0.0", "0.1"]
    assert list(activation_moments(module, data, ["1", "0", ""])) == ["0", "1", ""]
    assert list(activation_moments(module, data, (name for name in ["1"]))) == ["1"]
    with captured(module, "0.?") as outputs:
        module(data[0])
    assert list(outputs) == ["0.0", "0.1"]


class Odd(nn.Module):
    """Modules whose outputs are no samples of features, one a name."""

    OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
        "integers": lambda x: x.argmax(1, keepdim=True),
        "complex": lambda x: torch.complex(x, x),
        "nothing": lambda x: None,
        "scalar": lambda x: x.sum(),
        "empty": lambda x: x[:, :0],
        "sparse": lambda x: x.to_sparse(),
        "nested": lambda x: torch.nested.as_nested_tensor(list(x), layout=torch.jagged),
        "varying": lambda x: x[:, : len(x)],
        "wide": lambda x: x[:, :1].expand(-1, WIDEST + 1),
    }

    def __init__(self) -> None:
        super().__init__()
        for name, forward in self.OUTPUTS.items():
            part = nn.Module()
            part.forward = forward  # type: ignore[method-assign]
            self.add_module(name, part)
        self.idle, self.good = nn.Linear(2, 2), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for name in self.OUTPUTS:
            self.get_submodule(name)(x)
        return self.good(x)  # type: ignore[no-any-return]


REASONS = {
    "integers": "its output is torch.int64, torch.strided: expected a dense tensor of real floating numbers",
    "complex": "its output is torch.complex64, torch.strided: expected a dense tensor of real",
    "nothing": "the output is NoneType: expected a tensor",
    "scalar": r"its output \[\] has no axis beside the samples; name one in `features`",
    "empty": r"its output \[4, 0\] has no features",
    "sparse": "its output is torch.float32, torch.sparse_coo: expected a dense tensor",
    "nested": "its output is nested: expected a dense tensor",
    "varying": r"its outputs \[4, 4\] and \[2, 2\] have 4 and 2 features: moments need one width",
    "wide": r"its output \[4, 16385\] has 16385 features, and a covariance would take 2.15 GB: name its path",
}
ODD = [torch.ones(4, 5), torch.ones(2, 5)]


def test_modules_without_moments_are_skipped_with_their_reasons() -> None:
    for layers in (None, "?*"):
        found = activation_moments(Odd(), ODD, layers)
        assert list(found) == list(found.layers) == ["good"] and found["good"].samples == 6
        assert set(found.skipped) == {*REASONS, "idle"}
        for name, reason in REASONS.items():
            with pytest.raises(wb.LayerNotFoundError, match=f"'{name}' has no moments: {reason}"):
                found[name]
        assert found.skipped["idle"] == "it did not run in 2 batches." and "idle" not in found
    with pytest.raises(wb.LayerNotFoundError, match="'god' is not among the layers of this run. Did you mean 'good'"):
        found["god"]
    assert "of 1 layer over 2 batches, 10 skipped\n  good: 6 samples of 5 features\nnext" in repr(found)


@pytest.mark.parametrize("name", [name for name in REASONS if name != "wide"])
def test_modules_asked_for_by_their_paths_are_refused(name: str) -> None:
    module = Odd()
    before = state(module)
    with pytest.raises(
        EvaluationError,
        match=f"batch [01], counted from 0 .*: layer '{name}': {REASONS[name]}",
    ):
        activation_moments(module, ODD, ["good", name])
    assert state(module) == before


@pytest.mark.parametrize("layers", ["good", ["good"]])
def test_a_wide_output_is_counted_where_its_path_is_given(layers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.runtime.activations.WIDEST", 4)
    assert "5 features" in activation_moments(Odd(), ODD).skipped["good"]
    assert activation_moments(Odd(), ODD, layers)["good"].moments.width == 5


def test_a_module_asked_for_by_its_path_must_run() -> None:
    with pytest.raises(wb.ArgumentError, match="Odd's 'idle' did not run in 2 batches: leave it out, or name a module"):
        activation_moments(Odd(), ODD, ["good", "idle"])


def test_the_width_is_said_where_the_axis_is_wrong() -> None:
    module = nn.Sequential(nn.Tanh())
    data = [torch.ones(2, 3, 4), torch.ones(2, 3, 5)]
    with pytest.raises(EvaluationError, match="batch 1.*4 and 5 features.*where the axis is wrong, name it in"):
        activation_moments(module, data, "0")
    assert activation_moments(module, data, features={"0": 1})["0"].samples == 2 * 9
    with pytest.raises(EvaluationError, match=r"layer '0': its output \[2, 3, 4\] has no axis 3, which `features`"):
        activation_moments(module, data, features={"0": 3})
    with pytest.raises(wb.LayerNotFoundError, match="features names '1', which is not among the layers"):
        activation_moments(module, data, features={"1": 1})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("embeding", "Encoder has no submodule 'embeding'.*Did you mean 'embedding'"),
        (["head", "encoder.layer.*"], r"no submodule 'encoder.layer.\*'.*Did you mean"),
        ([], "an empty list of names selects no submodule"),
    ],
)
def test_names_are_checked_before_the_data_are_read(layers: Any, message: str) -> None:
    class Unread:
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("read")

    with pytest.raises(wb.LayerNotFoundError, match=message):
        activation_moments(Encoder(False), Unread(), layers)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: (x for x in images()), "one-shot generator"),
        (lambda: torch.ones(2, 2, 6, 6), "data is one Tensor"),
        (lambda: [], "data is empty"),
        (lambda: DataLoader(Stream(0)), "data gave no batch"),
    ],
)
def test_data_that_are_no_batches(data: Callable[[], Any], message: str) -> None:
    with pytest.raises(wb.ArgumentError, match=message):
        activation_moments(cnn(), data())


@pytest.mark.parametrize(
    ("mask", "got"),
    [(torch.ones(2, 1, 1, 3), r"\[2, 1, 1, 3\], torch.float32"), (torch.tensor([[0.0, -1e9]]), r"\[1, 2\]")],
)
def test_a_mask_that_does_not_say_what_is_padding(mask: Tensor, got: str) -> None:
    batch = {"input_ids": torch.zeros(2, 3, dtype=torch.int64), "attention_mask": mask}
    with pytest.raises(EvaluationError, match=rf"batch 0.*attention_mask is {got}.*expected \[batch, steps\] of 1"):
        activation_moments(Encoder(False), [batch])


SCRIPT = """
import json, torch
from torch import nn
from workbench.runtime import activation_moments
raised, net, data = [], nn.Sequential(nn.ReLU()), [torch.ones(2, 3)]
for code in ["net, data, [0]", "net, data, progress=3", "{}, data", "net, data, device='tpu'"]:
    try:
        raised.append(repr(eval(f"activation_moments({code})")))
    except Exception as error:
        raised.append(f"{type(error).__name__}: {error}")
print(json.dumps(raised))
"""


def test_arguments_that_are_refused(unchecked: Callable[..., Any]) -> None:
    parts = ["a submodule is named 0: expected a path", "progress=3: expected a function", "module is dict", "'tpu'"]
    for part, message in zip(parts, unchecked(SCRIPT), strict=True):
        assert message.startswith("ArgumentError: ") and part in message, message


# Progress, cancelling, failing, memory


class Stream(IterableDataset[Tensor]):
    """Samples without a length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.ones(self.count, 3))


@pytest.mark.parametrize(
    ("data", "totals"), [([torch.ones(2, 3)] * 3, [3, 3, 3, 3]), (DataLoader(Stream(6), 2), [1, 2, 3, 3])]
)
def test_progress_is_told_before_each_batch_and_at_the_end(data: Any, totals: list[int]) -> None:
    told: list[wb.Progress] = []
    activation_moments(nn.ReLU(), data, progress=told.append)
    assert [progress.done for progress in told] == [0, 1, 2, 3]
    assert [progress.total for progress in told] == totals
    assert [progress.item for progress in told] == ["batch 0", "batch 1", "batch 2", ""]
    assert all(0 <= a.seconds <= b.seconds for a, b in zip(told, told[1:], strict=False))


class Restless(nn.Module):
    """Draws random numbers, writes into a buffer and an attribute, and may fail."""

    seen: Tensor

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.inner, self.fails_at = cnn(), fails_at
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.seen == self.fails_at:
            raise ValueError("no more")
        self.seen += 1
        self.last = torch.rand(3), random.random(), np.random.rand(2)  # noqa: NPY002
        return self.inner(x)  # type: ignore[no-any-return]


def cancelling(done: int) -> Callable[[wb.Progress], None]:
    def stop(progress: wb.Progress) -> None:
        torch.rand(3)
        if progress.done == done:
            raise wb.Cancelled

    return stop


@pytest.mark.parametrize("done", [0, 2])
def test_a_cancel_leaves_everything_as_before_and_hands_over_what_is_done(done: int) -> None:
    module, data = Restless().train(), images()
    module.inner.get_submodule("1").eval()
    module.inner.get_submodule("6").register_forward_hook(lambda *_: None)
    before = state(module)
    with pytest.raises(wb.Cancelled) as stop:
        activation_moments(module, data, progress=cancelling(done))
    assert state(module) == before
    found = stop.value.partial
    assert found.batches == done and len(found) == (7 if done else 0)
    if done:
        expected = activation_moments(module, data[:done])
        assert torch.equal(found["inner.6"].moments.gram, expected["inner.6"].moments.gram)


def test_a_failure_and_a_run_leave_everything_as_before() -> None:
    module, data = Restless(fails_at=2).train(), images()
    before = state(module)
    with pytest.raises(
        EvaluationError, match=r"batch 2, counted from 0 \(\[2, 2, 6, 6\], \[2\]\): ValueError: no more"
    ):
        activation_moments(module, data)
    assert state(module) == before
    activation_moments(module, data[:2])
    assert state(module) == before
    with pytest.raises(ZeroDivisionError):
        activation_moments(module, data, progress=lambda progress: 1 / 0)  # type: ignore[arg-type, return-value]
    assert state(module) == before


RANDOM = """
import json, random
import numpy, torch
import workbench as wb
from workbench.runtime import activation_moments

class Restless(torch.nn.Module):
    def forward(self, x):
        torch.rand(3), random.random(), numpy.random.rand(2)
        if not x.any():
            raise ValueError
        return x

def stop(progress):
    random.random()
    if progress.done == 2:
        raise wb.Cancelled

def states():
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())

before, ones = states(), torch.ones(2, 3)
same = []
for data, progress in [([ones], None), ([ones, 0 * ones], None), ([ones] * 3, stop)]:
    try:
        activation_moments(Restless(), data, progress=progress)
        same.append("ran")
    except (wb.Cancelled, wb.WorkbenchError) as error:
        same.append(type(error).__name__)
    same.append(states() == before)
print(json.dumps(same))
"""


def test_random_states_are_as_before(unchecked: Callable[..., Any]) -> None:
    assert unchecked(RANDOM) == ["ran", True, "EvaluationError", True, "Cancelled", True]


def test_outputs_are_not_kept() -> None:
    """What is held between batches has the size of the widths alone: every earlier output is gone."""
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    outputs: list[weakref.ref[Tensor]] = []
    for part in module:
        part.register_forward_hook(lambda part, inputs, output: outputs.append(weakref.ref(output)))
    alive = []
    found = activation_moments(
        module, [torch.ones(50, 3)] * 6, progress=lambda _: alive.append(sum(ref() is not None for ref in outputs))
    )
    assert len(outputs) == 18 and alive == [0] * 7
    for layer in found.values():
        tensors = [value for value in vars(layer.moments).values() if isinstance(value, Tensor)]
        assert sum(tensor.numel() for tensor in tensors) == layer.moments.width * (layer.moments.width + 1)


def test_captured_sees_what_the_fast_path_of_attention_would_skip() -> None:
    module = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True).eval()
    with torch.no_grad(), captured(module, ["linear1", "norm2"]) as outputs:
        result = module(torch.ones(2, 3, 4))
    assert list(outputs) == ["linear1", "norm2"] and torch.equal(outputs["norm2"], result)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_says_the_same() -> None:
    module, data = cnn(), images()
    before = state(module)
    found, expected = runtime.activation_moments(module, data), activation_moments(module, data)
    assert state(module) == before
    for name in expected:
        here = found[name].moments.covariance
        assert here.is_cuda
        torch.testing.assert_close(here.cpu(), expected[name].moments.covariance, rtol=1e-8, atol=1e-10)


class StepsFirst(nn.Module):
    """Transposes its input, as around torch's own layers, which take the steps first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.inside, self.after = nn.Identity(), nn.Identity(), nn.Identity()
        self.memory = filled(nn.LSTM(2, 3))
        self.memory_batch_first = filled(nn.LSTM(2, 3, batch_first=True))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        self.memory(x.transpose(0, 1))
        self.memory_batch_first(x)
        inside: Tensor = self.inside(self.before(x).transpose(0, 1))
        return self.after(inside.transpose(0, 1))  # type: ignore[no-any-return]


def padded(batch: int, steps: int) -> tuple[dict[str, Tensor], Tensor]:
    """A batch of sequences of 1, 2, 3, … steps, and the rows of it that are no padding."""
    x = random_tensor(batch, steps, 2)
    mask = (torch.arange(steps) <= torch.arange(batch)[:, None]).long()
    return {"x": x, "attention_mask": mask}, x[mask != 0]


@pytest.mark.parametrize("steps", [4, 3, 7])
def test_padding_is_left_out_where_the_steps_come_first(steps: int) -> None:
    batch, rows = padded(5, steps)
    found = activation_moments(StepsFirst(), [batch])
    for name in ("before", "inside", "after"):
        assert_are(found[name], rows)
        assert found[name].left_out == 5 * steps - len(rows)
    for name in ("memory", "memory_batch_first"):
        assert (found[name].samples, found[name].left_out) == (len(rows), 5 * steps - len(rows))


def test_a_square_batch_is_refused_unless_the_order_is_said() -> None:
    batch, rows = padded(4, 4)
    for order in (True, False, None):
        found = activation_moments(StepsFirst(), [batch], batch_first=order)
        told = {True: {"before", "after"}, False: {"inside"}, None: set()}[order]
        for name in told:
            assert_are(found[name], rows)
        module = StepsFirst()
        for name in ("memory", "memory_batch_first"):  # they have a `batch_first` of their own
            part: nn.Module = getattr(module, name)
            outputs = part(batch["x"] if name != "memory" else batch["x"].transpose(0, 1))[0].detach()
            outputs = outputs if name != "memory" else outputs.transpose(0, 1)
            assert_are(found[name], outputs[batch["attention_mask"] != 0])
    assert {*found.skipped} == {"before", "inside", "after"}
    reason = (
        "its output [4, 4, 2] could be [batch, steps, width] or [steps, batch, width], so that which of its positions "
        "are padding is unknown: say it in `batch_first`, or give batches of another size."
    )
    assert found.skipped["inside"] == reason
    with pytest.raises(
        EvaluationError, match=r"layer 'inside': its output \[4, 4, 2\] could be \[batch, steps, width\]"
    ):
        activation_moments(StepsFirst(), [batch], "inside")


def test_a_square_batch_whose_order_does_not_matter_is_counted() -> None:
    batch, _ = padded(4, 4)
    for mask in (torch.ones(4, 4), torch.ones(4, 4).tril().flip(1)):
        found = activation_moments(StepsFirst(), [batch | {"attention_mask": mask}])
        assert not found.skipped and found["inside"].samples == found["before"].samples == int(mask.sum())


def test_an_order_is_true_false_or_none(unchecked: Callable[..., Any]) -> None:
    script = """
import json, torch
from workbench.runtime import activation_moments
try:
    activation_moments(torch.nn.Identity(), [torch.ones(1, 2)], batch_first="yes")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    assert unchecked(script) == ["ArgumentError", "batch_first='yes': expected True, False or None."]

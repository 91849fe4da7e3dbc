"""Passes with outputs replaced and caught: values by hand, forms of outputs, where a pass ends, nothing left behind."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from workbench.errors import ArgumentError, Cancelled
from workbench.runtime.batches import first_tensor, with_first_tensor
from workbench.runtime.passing import fresh, passed, replaced


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Counting(nn.Module):
    """Three steps that say that they ran, as a tuple, a dict or a tensor."""

    def __init__(self, form: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.a, self.b, self.c, self.form = nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2), form
        self.ran: list[str] = []
        self.double()

    def forward(self, x: Tensor) -> Any:
        self.ran.append("a")
        hidden = self.a(x)
        self.ran.append("b")
        hidden = self.b(hidden)
        self.ran.append("c")
        y = self.c(hidden)
        self.ran.append("end")
        return self.form(y)


def flags(module: nn.Module) -> list[Any]:
    hooks = [[*part._forward_hooks, *part._forward_pre_hooks] for part in module.modules()]
    return [hooks, torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()]


# passed


def test_values_changes_and_the_copy_for_what_follows() -> None:
    module, x = Counting(), gaussian(4, 3)
    found = passed(module, ((x,), {}), ["c", "a", ""])
    a = x @ module.a.weight.T + module.a.bias
    c = a.relu() @ module.c.weight.T + module.c.bias
    for path, expected in {"a": a, "c": c, "": c}.items():
        torch.testing.assert_close(found[path], expected, rtol=0, atol=1e-15)
    assert (a < 0).any(), "the ReLU in place has not reached what was caught"
    moved = passed(module, ((x,), {}), ["a", "c"], {"a": lambda y: -y, "c": lambda y: y + 1})
    torch.testing.assert_close(moved["a"], -a, rtol=0, atol=1e-15)
    torch.testing.assert_close(moved["c"], (-a).relu() @ module.c.weight.T + module.c.bias + 1, rtol=0, atol=1e-15)
    unseen = passed(module, ((x,), {}), ["c"], {"a": torch.zeros_like})
    assert list(unseen) == ["c"]
    torch.testing.assert_close(unseen["c"], module.c.bias.expand(4, 2), rtol=0, atol=0)


def test_a_held_output_is_not_changed_in_place() -> None:
    module, held = Counting(), gaussian(4, 3, seed=1)
    found = passed(module, ((gaussian(4, 3),), {}), ["a", "b"], {"a": lambda _: held})
    assert found["a"] is held and torch.equal(held, gaussian(4, 3, seed=1)) and torch.equal(found["b"], held.relu())


@pytest.mark.parametrize(
    ("wanted", "ran"),
    [(["a"], ["a"]), (["b", "a"], ["a", "b"]), (["c"], ["a", "b", "c"]), (["", "a"], ["a", "b", "c", "end"])],
)
def test_a_pass_ends_with_the_last_output_that_is_wanted(wanted: list[str], ran: list[str]) -> None:
    module = Counting()
    assert set(passed(module, ((gaussian(4, 3),), {}), wanted)) == set(wanted)
    assert module.ran == ran


def test_what_does_not_run_is_not_in_it() -> None:
    module = Counting()
    module.idle = nn.Linear(2, 2)
    assert list(passed(module, ((gaussian(4, 3),), {}), ["a", "idle"])) == ["a"] and module.ran[-1] == "end"
    assert passed(module, ((gaussian(4, 3),), {}), []) == {}


def test_named_arguments_and_inputs_that_are_changed_in_place() -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Identity()

        def forward(self, x: Tensor, *, scale: Tensor, flag: bool) -> Tensor:
            assert flag
            return self.fc(x.mul_(scale.add_(1)))  # type: ignore[no-any-return]

    call = ((gaussian(4, 3),), {"scale": torch.ones(3, dtype=torch.float64), "flag": True})
    for _ in range(2):
        assert torch.equal(passed(Greedy(), call, ["fc"])["fc"], 2 * gaussian(4, 3))
    assert torch.equal(call[0][0], gaussian(4, 3)) and torch.equal(call[1]["scale"], torch.ones(3).double())
    copy = fresh(call)
    assert copy[1]["flag"] is True and copy[0][0] is not call[0][0] and torch.equal(copy[0][0], call[0][0])


def test_an_error_is_not_swallowed_and_nothing_is_left() -> None:
    module = Counting()
    module.a.register_forward_hook(lambda *_: None)
    before = flags(module)

    def stop(error: BaseException) -> Callable[[Tensor], Tensor]:
        def change(_: Tensor) -> Tensor:
            torch.set_grad_enabled(not before[1])
            raise error

        return change

    for error in (ValueError("no"), Cancelled(), KeyboardInterrupt(), StopIteration()):
        with pytest.raises(type(error)) as caught:
            passed(module, ((gaussian(4, 3),), {}), ["c"], {"b": stop(error)})
        assert caught.value is error and flags(module) == before
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        passed(module, ((gaussian(4, 5),), {}), ["c"])
    with pytest.raises(AttributeError, match="has no attribute .nothing"):
        passed(module, ((gaussian(4, 3),), {}), ["a", "nothing"])
    assert flags(module) == before
    with pytest.raises(ArgumentError, match="expected a tensor, a tuple with one"):
        passed(Counting(lambda y: {"n": 3}), ((gaussian(4, 3),), {}), [""])


def test_a_users_except_does_not_swallow_the_end() -> None:
    class Careful(Counting):
        def forward(self, x: Tensor) -> Any:
            for part in (self.a, self.c):
                try:
                    y = part(x)
                except Exception:
                    self.ran.append("swallowed")
                    raise
                finally:
                    self.ran.append("finally")
            return y

    module = Careful()
    assert list(passed(module, ((gaussian(4, 3),), {}), ["a"])) == ["a"]
    assert module.ran == ["finally"]


@pytest.mark.parametrize("outside", [True, False])
def test_a_change_may_turn_gradients_on(outside: bool) -> None:
    module, x = Counting(), gaussian(4, 3)
    module.requires_grad_(False)

    def leaf(y: Tensor) -> Tensor:
        torch.set_grad_enabled(True)
        return y.detach().clone().requires_grad_()

    with torch.set_grad_enabled(outside):
        found = passed(module, ((x,), {}), ["a", ""], {"a": leaf})
        assert torch.is_grad_enabled() == outside
    assert found["a"].is_leaf
    (gradient,) = torch.autograd.grad(found[""], found["a"], torch.ones(4, 2, dtype=torch.float64))
    torch.testing.assert_close(gradient, (found["a"] > 0) * module.c.weight.sum(0), rtol=1e-14, atol=1e-15)


def test_foreign_hooks_come_first_and_stay() -> None:
    module, x, seen = Counting(), gaussian(4, 3), []
    module.a.register_forward_hook(lambda _, __, output: 10 * output)
    late = module.a.register_forward_hook(lambda *_: seen.append(1), always_call=True)
    before = flags(module)
    found = passed(module, ((x,), {}), ["a"])
    torch.testing.assert_close(found["a"], 10 * (x @ module.a.weight.T + module.a.bias), rtol=0, atol=1e-14)
    assert flags(module) == before and seen == [1]
    late.remove()


# replaced


def test_every_call_is_replaced_and_what_is_nested_goes_in_turn() -> None:
    shared = nn.Linear(3, 3).double()
    module = nn.Sequential(shared, nn.Tanh(), shared)
    with replaced(module, {"0": lambda y: y + 1}):
        with replaced(module, {"0": lambda y: 2 * y}):
            inner = module(gaussian(4, 3))
        outer = module(gaussian(4, 3))
    plain = lambda x: x @ shared.weight.T + shared.bias  # noqa: E731
    torch.testing.assert_close(inner, 2 * (plain(torch.tanh(2 * (plain(gaussian(4, 3)) + 1))) + 1))
    torch.testing.assert_close(outer, plain(torch.tanh(plain(gaussian(4, 3)) + 1)) + 1)
    torch.testing.assert_close(module(gaussian(4, 3)), plain(torch.tanh(plain(gaussian(4, 3)))))


def test_attention_runs_its_parts_while_replaced() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), replaced(encoder, {"norm2": torch.zeros_like}):
        assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.equal(encoder(gaussian(2, 5, 8)), torch.zeros(2, 5, 8).double())
    assert torch.backends.mha.get_fastpath_enabled()
    with (
        contextlib.suppress(AttributeError),
        replaced(encoder, {"norm2": torch.zeros_like, "nothing": torch.zeros_like}),
    ):
        pass
    assert torch.backends.mha.get_fastpath_enabled() and not encoder.norm2._forward_hooks


# The form of outputs


class Named(NamedTuple):
    """Hidden states before a number."""

    count: int
    hidden: Tensor
    extra: Tensor


class WithLogits(NamedTuple):
    """Logits that are not the first tensor."""

    hidden: Tensor
    logits: Tensor


@dataclass
class Plain:
    """An object with logits."""

    logits: Tensor
    note: str = "kept"


class Subclass(dict[str, Any]):
    """A dict with an attribute."""

    note = "kept"


def models_output() -> Any:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.BaseModelOutput(last_hidden_state=gaussian(2, 3), hidden_states=(gaussian(2, 3, seed=1),))


def models_output_with_logits() -> Any:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.CausalLMOutput(loss=gaussian(1), logits=gaussian(2, 3))


FORMS: dict[str, Callable[[], Any]] = {
    "tensor": lambda: gaussian(2, 3),
    "tuple": lambda: (None, gaussian(2, 3), gaussian(2)),
    "list": lambda: [gaussian(2, 3), (gaussian(2),)],
    "structseq": lambda: torch.return_types.max((gaussian(2, 3), torch.ones(2))),
    "namedtuple": lambda: Named(3, gaussian(2, 3), gaussian(2)),
    "namedtuple with logits": lambda: WithLogits(gaussian(2), gaussian(2, 3)),
    "dict": lambda: {"n": 3, "y": gaussian(2, 3), "z": gaussian(2)},
    "dict with logits": lambda: {"z": gaussian(2), "logits": gaussian(2, 3)},
    "ordered dict": lambda: OrderedDict(y=gaussian(2, 3)),
    "subclass of dict": lambda: Subclass(y=gaussian(2, 3), n=1),
    "object": lambda: Plain(gaussian(2, 3)),
    "ModelOutput": models_output,
    "ModelOutput with logits": models_output_with_logits,
}


def parts_of(outputs: Any) -> list[tuple[Any, Any]]:
    if isinstance(outputs, Tensor):
        return [("", outputs)]
    if isinstance(outputs, dict):
        return list(outputs.items())
    return list(vars(outputs).items()) if isinstance(outputs, Plain) else list(enumerate(outputs))


@pytest.mark.parametrize("form", list(FORMS))
def test_the_form_of_an_output_is_kept(form: str) -> None:
    given, new = FORMS[form](), torch.zeros(2, 3)
    old = first_tensor(given)
    assert torch.equal(old, gaussian(2, 3))
    changed = with_first_tensor(given, new)
    assert type(changed) is type(given) or isinstance(given, Tensor)
    assert first_tensor(changed) is new and first_tensor(given) is old, "the given output stays as it is"
    pairs = list(zip(parts_of(given), parts_of(changed), strict=True))
    assert all(a == b for (a, _), (b, _) in pairs)
    moved = [(was, now) for (_, was), (_, now) in pairs if was is not now]
    assert len(moved) == 1 and moved[0][0] is old and moved[0][1] is new
    if form.startswith("ModelOutput"):
        name = "logits" if "logits" in given else "last_hidden_state"
        assert getattr(changed, name) is new is changed[name] and changed.to_tuple()[list(changed).index(name)] is new
        assert getattr(given, name) is old is given[name]


@pytest.mark.parametrize("form", list(FORMS))
def test_what_reads_a_replaced_output_finds_its_form(form: str) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Module()
            self.inner.forward = lambda x: FORMS[form]()  # type: ignore[method-assign]

        def forward(self, x: Tensor) -> Tensor:
            outputs = self.inner(x)
            assert type(outputs) is type(FORMS[form]())
            return first_tensor(outputs) + 1

    found = passed(Reader(), ((gaussian(2, 3),), {}), ["inner", ""], {"inner": lambda y: 3 * y})
    assert torch.equal(found["inner"], 3 * gaussian(2, 3)) and torch.equal(found[""], 3 * gaussian(2, 3) + 1)


@pytest.mark.parametrize(
    "outputs", [None, 3, (), (1, "a"), {}, {"n": 3}, Plain.__new__(Plain)], ids=lambda outputs: type(outputs).__name__
)
def test_outputs_without_a_tensor_are_refused(outputs: Any) -> None:
    with pytest.raises(ArgumentError, match="expected a tensor, a tuple with one, or an object with .logits"):
        first_tensor(outputs)

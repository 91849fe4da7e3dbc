"""A cancel in the last call of every function that tells its progress: passed on, with the whole result."""

import dataclasses
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.degeneracy.passes import Passes


def tensors(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(60, 50, generator=draw) for name in ("0.a.weight", "1.a.weight", "2.a.weight")}


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def data() -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(10, 4, generator=draw), torch.arange(10) % 3) for _ in range(2)]


def evaluator() -> wb.Evaluator:
    return wb.evaluator(net(), data(), "cross_entropy", device="cpu")


def basis() -> wb.InteractionBasis:
    return wb.interaction_basis(net(), data(), device="cpu")


def graph() -> wb.InteractionGraph:
    return wb.interaction_graph(net(), data(), basis())


def groups() -> wb.PermutationGroups:
    return wb.permutation_groups(net(), torch.zeros(1, 4))


def normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))


def taken() -> wb.Signature:
    return wb.signature(ancestor=normed(0), clean=normed(1), robust=normed(2))


RESET: dict[str, Any] = {"batch_norm": "re-estimated", "data": data(), "device": "cpu"}
CALLS: dict[str, Callable[[Any], Any]] = {
    "atlas": lambda told: wb.atlas(wb.contents(tensors()), columns=["*.rms", "*.std", "depth"], progress=told),
    "spectrum": lambda told: wb.spectrum(tensors(), progress=told),
    "farms": lambda told: wb.farms(tensors(), window=20, progress=told),
    "tempbalance": lambda told: wb.tempbalance(tensors(), learning_rate=0.1, estimator="spectrum", progress=told),
    "alphapruning": lambda told: wb.alphapruning(tensors(), density=0.5, estimator="spectrum", progress=told),
    "comparison": lambda told: wb.comparison([tensors(0), tensors(1)], metric="stable_rank", progress=told),
    "contents": lambda told: wb.contents(tensors(), progress=told),
    "activations": lambda told: wb.activations(net(), data(), progress=told),
    "degeneracy": lambda told: wb.degeneracy(net(), data(), progress=told),
    "interaction_basis": lambda told: wb.interaction_basis(net(), data(), progress=told),
    "interaction_graph": lambda told: wb.interaction_graph(net(), data(), basis(), progress=told),
    "interaction_modules": lambda told: wb.interaction_modules(graph(), nulls=2, progress=told),
    "ablation": lambda told: wb.ablation(evaluator(), basis(), "1", progress=told),
    "barrier": lambda told: wb.barrier(evaluator(), net(1), net(2), points=5, batch_norm=None, progress=told),
    "surface": lambda told: wb.surface(evaluator(), net(1), points=3, batch_norm=None, progress=told),
    "match": lambda told: wb.match(groups(), net(1), net(2), restarts=1, evaluator=evaluator(), progress=told),
    "match_many": lambda told: wb.match_many(groups(), [net(1), net(2), net(3)], progress=told),
    "diff": lambda told: wb.diff(tensors(0), tensors(1), progress=told),
    "diff of activations": lambda told: wb.diff(net(1), net(2), data=data(), device="cpu", progress=told),
    "signature": lambda told: wb.signature(ancestor=tensors(0), clean=tensors(1), robust=tensors(2), progress=told),
    "similarity": lambda told: wb.similarity({"a": tensors(0), "b": tensors(1)}, progress=told),
    "merge": lambda told: wb.merge(tensors(0), [tensors(1)], progress=told),
    "save": lambda told: wb.save(tensors(), "saved.safetensors", progress=told),
    "Signature.apply": lambda told: taken().apply(normed(), **RESET, module=normed(), progress=told),
    "Signature.save": lambda told: taken().save("signature.safetensors", bits=4, progress=told),
    "repair": lambda told: wb.repair(evaluator(), net(1), net(2), progress=told),
}
WHOLE = ("repair", "signature", "merge", "save", "Signature.apply", "Signature.save")  # that are nothing in part
ENDS = {"tempbalance": wb.Spectrum, "alphapruning": wb.Spectrum}  # what is cut where it is of another kind


@pytest.fixture(autouse=True)
def _as_many_calls_in_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[Passes.__module__], "SECONDS", float("inf"))


def test_every_function_that_tells_its_progress_is_here() -> None:
    public = {name: getattr(wb, name) for name in wb.__all__}
    methods = {
        f"{name}.{method}": getattr(kind, method)
        for name, kind in public.items()
        if inspect.isclass(kind)
        for method in vars(kind)
        if not method.startswith("_")
    }
    telling = [
        name
        for name, one in (public | methods).items()
        if inspect.isfunction(one) and "progress" in inspect.signature(one).parameters
    ]
    assert sorted(telling) == sorted(set(CALLS) - {"diff of activations"})


def same(one: Any, other: Any) -> bool:
    if isinstance(one, wb.Result):
        tables = all(without_times(one.frame(name)).equals(without_times(other.frame(name))) for name in one.tables)
        extra = [field.name for field in dataclasses.fields(one) if field.name not in ("tables", "meta")]
        return tables and all(same(getattr(one, name), getattr(other, name)) for name in extra)
    if isinstance(one, Path):
        return one == other and one.is_file()
    if isinstance(one, Tensor):
        return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
    return list(one) == list(other) and all(same(one[name], other[name]) for name in one)


def without_times(frame: Any) -> Any:
    return frame.drop(columns=["seconds"], errors="ignore")


@pytest.mark.parametrize("name", CALLS)
def test_a_cancel_in_the_last_call_has_the_whole_result(name: str) -> None:
    told: list[wb.Progress] = []
    whole = CALLS[name](told.append)
    assert told[-1].item == "" and told[-1].done == told[-1].total and len(told) > 2
    heard: list[wb.Progress] = []

    def last(progress: wb.Progress) -> None:
        heard.append(progress)
        if progress.partial is not None:
            progress.partial()  # a look in passing changes nothing
        if len(heard) == len(told):
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stop:
        CALLS[name](last)
    partial = stop.value.partial
    assert type(partial) is type(whole) and same(partial, whole)
    assert "CANCELLED" not in repr(partial)
    if isinstance(whole, wb.Result):
        assert "cancelled" not in partial.meta
    made = heard[-1].partial
    assert made is None or (same(made(), whole) and "CANCELLED" not in repr(made()))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in WHOLE])
def test_a_cancel_before_says_so(name: str) -> None:
    count = 0

    def second(_: wb.Progress) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stop:
        CALLS[name](second)
    partial = stop.value.partial
    assert isinstance(partial, ENDS.get(name, wb.Result))
    assert partial.meta["cancelled"] and "CANCELLED" in repr(partial)


def test_a_save_that_is_stopped_leaves_what_stood_there(tmp_path: Path) -> None:
    def second(progress: wb.Progress) -> None:
        if progress.done == 1:
            raise wb.Cancelled

    file, folder = wb.save(tensors(0), tmp_path / "m.safetensors"), wb.save(tensors(0), tmp_path / "folder")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for target, options in ((file, {}), (folder, {}), (folder, {"shard_bytes": 1})):
        with pytest.raises(wb.Cancelled) as stop:
            wb.save(tensors(1), target, progress=second, **options)
        assert stop.value.partial is None
    with pytest.raises(wb.Cancelled):
        taken().save(file, bits=4, progress=second)
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("call", "words"), [(7, "CANCELLED after 6 of 6 tensors"), (9, "CANCELLED after 1 of 2 batches")]
)
def test_a_diff_stopped_before_or_in_its_activations_says_where(call: int, words: str) -> None:
    heard: list[wb.Progress] = []

    def stop(progress: wb.Progress) -> None:
        heard.append(progress)
        if len(heard) == call:
            raise wb.Cancelled

    with pytest.raises(wb.Cancelled) as stopped:
        wb.diff(net(1), net(2), data=data(), device="cpu", progress=stop)
    assert words in repr(stopped.value.partial)

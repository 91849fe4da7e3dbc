"""One model from several that were tuned from the same base."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from workbench.errors import ArgumentError, LayerError, nearest
from workbench.progress import ProgressCallback, check_progress, reporter, told_whole
from workbench.results import short_source
from workbench.signatures.family import Family, Mismatch, family
from workbench.signatures.merge_method import MergeMethod, Rule
from workbench.signatures.slerp import Slerp
from workbench.signatures.task_arithmetic import TaskArithmetic
from workbench.signatures.ties import Ties
from workbench.weights import ModelLike, TensorInfo, Weights, load

Method: TypeAlias = Literal["task_arithmetic", "ties", "slerp"]
Room: TypeAlias = Callable[[int, torch.dtype], Tensor]  # memory for so many elements of a precision
# `method=` → its class: FORMULA, SOURCE, MODELS, and a dataclass's fields with their ranges in `metadata`
METHODS: Mapping[str, type[MergeMethod]] = MappingProxyType({one.NAME: one for one in (TaskArithmetic, Ties, Slerp)})


def merge(
    base: ModelLike,
    models: Iterable[ModelLike],
    *,
    method: Method = "ties",
    scale: float | Sequence[float] | None = None,
    density: float | None = None,
    t: float | None = None,
    mismatch: Mismatch = "error",
    progress: ProgressCallback | None = None,
) -> Weights:
    """Models merged into their base: θ₀ + Σ λ_i·τ_i, TIES of the τ_i, or an arc from θ₀ to θ₁.

    τ_i = θ_i − θ₀ is what model i changed, its task vector.

    - `task_arithmetic`: θ₀ + Σ_i λ_i·τ_i, λ = `scale`.
    - `ties`: θ₀ + λ·mean{τ̂_i : sgn τ̂_i = γ, τ̂_i ≠ 0}, element by element, with γ = sgn Σ_i τ̂_i; τ̂_i are the round(k·n)
      largest |τ_i| among all n elements of the model, k = `density`; of equal ones the first.
    - `slerp`: [sin((1−t)Ω)·θ₀ + sin(tΩ)·θ₁] / sin Ω, tensor by tensor, Ω the angle between the two as vectors.

    Args:
        base: θ₀, anything `wb.load` takes; names, shapes and dtypes of the result are its.
        models: θ_i, one or more, tuned from the base; slerp takes exactly one.
        method: one of the three; `wb.MERGE_METHODS` has the class of each, with its formula, source and, in
            `dataclasses.fields`, the meanings and ranges of its parameters.
        scale: λ. task_arithmetic: one for all models or one for each; 0.4 as Yadav et al. take it where nothing is
            tuned. ties: one number; 1 as there.
        density: k in (0, 1], the share of each model's changes that ties keeps; 0.2 as in Yadav et al.
        t: slerp's place on the arc, from 0 (base) to 1 (model); 0.5.
        mismatch: what becomes of tensors that a model has not or has in another shape: "error" refuses and names the
            first, "base" leaves them as they are in the base, "overlap" merges the first rows that all have (a
            vocabulary that grew), leaves the others as they are in the base and drops a model's that the base has not.
            The result's `.notes` name each.
        progress: called with a Progress before each tensor that ties has to look through before it merges; may raise
            `wb.Cancelled`.

    Returns:
        Weights that merge a tensor on the CPU when it is read, for `wb.save`, `load_state_dict` or any analysis.
        Integers are those of the base, ties stay, running statistics of batch norm are averages (wb.repair estimates
        them); `.notes` say so.

    Raises:
        ArgumentError: an argument is out of its range or not one of the method's, a model is of another architecture,
            or a tensor is complex, 8-bit floats or sparse.
        CheckpointError: a model cannot be opened.
        LayerError: a change is NaN or infinite under ties (at once); on reading, ends of an arc are antiparallel, or
            the merge of finite tensors overflows their dtype.
        Cancelled: the callback asked for it; there is no partial merge before the end.

    Cost: the headers; a tensor read costs that tensor of each model. ties first walks through base and model two times
    for each model (four in float64, one more where changes of exactly the threshold's size are kept in part). Memory:
    one tensor of base, models and result; what is in memory, as a module, is copied at the call and stays as it was.

    Source: Ilharco et al. 2023 (arXiv 2212.04089); Yadav et al. 2023 (arXiv 2306.01708); Shoemake 1985. As in the
    paper, ties ranks the changes of the whole model and keeps exactly round(k·n): the authors' code keeps one more, and
    mergekit ranks each tensor by itself. Where Σ τ̂ is 0, nothing agrees and the base stays; the authors' code gives
    those elements the sign of the majority.

    Misreads: swapped, base and model give a merge too, with the opposite changes; look at `wb.diff` first. A merged
    network is untested: evaluate it. NaN of a model is NaN of the result under task_arithmetic and slerp; a tensor
    that base and all models have bit by bit, such as a mask of −∞, is the base's. Models that do not come from this
    base have changes as large as their weights, which no sum makes sense of.

    Example:
        >>> changes = torch.tensor([[0.9, -0.1, 0.5, 0.0, -0.6, 0.2], [-0.4, 0.8, 0.3, 0.1, -0.5, -0.2]])
        >>> merged = merge({"w": torch.zeros(6)}, [{"w": change} for change in changes], density=0.5)
        >>> [round(value, 2) for value in merged["w"].tolist()]
        [0.9, 0.8, 0.5, 0.0, -0.55, 0.0]
    """
    check_progress(progress)
    way = merge_method(method, scale=scale, density=density, t=t)
    if isinstance(models, str | bytes | Mapping | torch.nn.Module | Weights) or not isinstance(models, Iterable):
        raise ArgumentError(f"models is {type(models).__name__}: expected a list of models, also of one.")
    opened = [load(model).snapshot() for model in models]
    way.check(len(opened))
    kin = family(load(base).snapshot(), opened, mismatch)
    report, done, total = reporter(progress), 0, way.walks(kin) * len(kin.merged)

    def told(name: str) -> None:
        nonlocal done
        report(name, done, max(total, done + 1))
        done += 1

    whole = _weights(kin, way, way.rule(kin, told))
    return told_whole(whole, lambda: report("", done, done))


def merge_method(method: str, **given: Any) -> MergeMethod:
    """The method with its parameters.

    Raises:
        ArgumentError: an unknown method, or a parameter that is not one of its.
    """
    if method not in METHODS:
        raise ArgumentError(f"method={method!r}: expected {', '.join(map(repr, METHODS))}.{nearest(method, METHODS)}")
    kind, chosen = METHODS[method], {name: value for name, value in given.items() if value is not None}
    if foreign := next((name for name in chosen if name not in kind.parameters()), None):
        raise ArgumentError(f"{foreign}={chosen[foreign]!r}: {method} has no {foreign}, only {kind.parameters()}.")
    return kind(**chosen)


def _weights(kin: Family, way: MergeMethod, rule: Rule) -> Weights:
    merged, statistics = set(kin.merged), set(kin.statistics)

    def made(info: TensorInfo, room: Room) -> Tensor:
        name = info.tied_to or info.name
        if name not in merged and name not in statistics:
            return kin.base[name].cpu()
        tensors = kin.aligned(name)
        if tensors.identical:
            return kin.base[name].cpu()
        if name in statistics:
            found = way.averaged(tensors)
        else:
            rule(name, tensors, found := room(len(tensors.base), tensors.precision))
        found = found.to(info.dtype)
        if tensors.overflows(found):
            raise LayerError(
                f"{name}: the merge overflows {info.dtype}, of finite tensors: choose another scale, or merge into a "
                "base in a wider dtype."
            )
        if name in kin.rows:
            whole = kin.base[name].cpu().reshape(-1)
            whole[: len(found)] = found
            found = whole
        return found.reshape(info.shape)

    lent = threading.local()

    def used_again(elements: int, precision: torch.dtype) -> Tensor:
        if getattr(lent, "memory", None) is None or len(lent.memory) < elements:
            lent.memory = None  # gone before the larger one comes
            lent.memory = fresh(elements, precision)
        memory: Tensor = lent.memory
        return memory[:elements]

    base, *models = (short_source(one.source).rpartition("/")[2] for one in (kin.base, *kin.models))
    story = f"{way} of {base} and {', '.join(models)}"
    return Weights(
        [replace(info, stored=info.name) for info in kin.base.infos.values()],
        lambda info: made(info, fresh),
        source=story,
        notes=[*kin.base.notes, *kin.notes],
        ordered=kin.base.ordered,
        borrow=lambda info: made(info, used_again),
    )


def fresh(elements: int, precision: torch.dtype) -> Tensor:
    """Memory for a merged tensor."""
    return torch.empty(elements, dtype=precision)

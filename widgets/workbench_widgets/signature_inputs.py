"""The inputs that the views of `wb.ui.SignatureExplorer` share, and the calls that they stand for."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import choices, one_of
from workbench_widgets.call import Call, Given, Part
from workbench_widgets.checkpoint import CheckpointField, LabelledField
from workbench_widgets.evaluation import UNCHOSEN, Network
from workbench_widgets.layered_view import LayerInputs
from workbench_widgets.shared import FieldStyle

POLICIES = choices(wb.Signature.apply, "batch_norm")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # what has no arithmetic, as wb.signature says
NO_NORM = "no running statistics"
EVERY, ALL_LAYERS = "all of them", "all layers"


class SignatureInputs(LayerInputs):
    """The models, and which layer and model the figures show.

    Args:
        style: of the labels.
        first: the base, the common ancestor of signatures.
        models: by label, or a list.
        clean: tuned from the base on clean data.
        floor: another seed of the base.
        signatures: by label, in place of those that are taken of the models: a Signature or the path of its file.
        network: an evaluator, or nothing.
        data: batches for the re-estimation of running statistics; None for the evaluator's.
        types: label → type, of the signatures.
        layers: names or globs; None for all.
        groups: of layers, each a list of names or globs; none for all layers in one.
        batch_norm: what becomes of running statistics, or None for not chosen.

    Raises:
        wb.ArgumentError: a value that its control does not offer.
    """

    def __init__(
        self,
        style: FieldStyle,
        *,
        first: Callable[[], Any],
        models: Any,
        clean: Any,
        floor: Any,
        signatures: Mapping[str, Any] | None,
        network: Network,
        data: Any,
        types: Mapping[str, str] | None,
        layers: str | Sequence[str] | None,
        groups: Sequence[str | Sequence[str]],
        batch_norm: str | None,
    ) -> None:
        one_of("batch_norm", batch_norm, (*POLICIES, None))
        check_signatures(signatures)
        self.network, self._first, self._data = network, first, data
        self._stored, self._types = dict(signatures or {}), None if types is None else dict(types)
        self._policy = batch_norm
        self.models = LabelledField(models, "Models", style, "what is compared with the base; the robust ones")
        self.clean = CheckpointField(
            clean, "Clean", style, "tuned on clean data: for signatures", "what was tuned from the base on clean data"
        )
        self.floor = CheckpointField(
            floor, "Noise floor", style, "another seed of the base, or nothing", "another seed, whose distance is noise"
        )
        self.layers = ipw.Text(
            joined(layers),
            description="Layers",
            placeholder=ALL_LAYERS,
            tooltip="names or globs, comma-separated",
            continuous_update=False,
            style=style,
        )
        self.groups = ipw.Text(
            "; ".join(joined(group) for group in groups),
            description="Layer groups",
            placeholder=f"{ALL_LAYERS} in one; conv*; fc1, fc2",
            tooltip="a slider for each: names or globs, comma-separated; groups are separated by semicolons",
            continuous_update=False,
            style=style,
        )
        self.batch_norm = ipw.Dropdown(
            options=[NO_NORM],
            disabled=True,
            description="Batch norm",
            tooltip="running statistics: the clean network's, the robust one's, or estimated on the data",
            style=style,
        )
        self.layer = ipw.SelectionSlider(
            options=[("all weights", "")],
            index=0,
            description="Layer",
            tooltip="which the figures show",
            style=style,
        )
        self.model = ipw.Dropdown(
            options=[(EVERY, None)], index=0, description="Model", tooltip="which the figures show", style=style
        )

    @property
    def labels(self) -> list[str]:
        """Labels of the signatures."""
        return list(self._stored or self.models.labelled)

    def base(self) -> Given:
        """The base."""
        return Given("base", self._first())

    def given_models(self) -> dict[str, Given]:
        """Label → model.

        Raises:
            wb.ArgumentError: there is none.
        """
        found = self.models.labelled
        if not found:
            raise wb.ArgumentError("no model yet: type label=path of one or several, or pass models.")
        return {label: Given(name, found[label]) for label, name in variables(found, "model").items()}

    def given_clean(self) -> Given:
        """The clean network.

        Raises:
            wb.ArgumentError: there is none.
        """
        if not self.clean.filled:
            raise wb.ArgumentError("no clean network yet: type its path under Clean, or pass clean=.")
        return Given("clean", self.clean.model)

    def difference(self, detail: Sequence[str]) -> Call:
        """`wb.diff` of the base and the models."""
        keywords: dict[str, Any] = {"detail": list(detail)} if detail else {}
        if self.floor.filled:
            keywords["floor"] = Given("floor", self.floor.model)
        if names := [name.strip() for name in self.layers.value.split(",") if name.strip()]:
            keywords["layers"] = names
        return Call(wb.diff, (self.base(), self.given_models()), keywords, "changes")

    def signatures(self) -> dict[str, Call | Given]:
        """Label → signature: of each model, or what was given."""
        if self._stored:
            names = variables(self._stored, "signature")
            return {
                label: Call(wb.Signature.load, (str(one),), {}, names[label])
                if not isinstance(one, wb.Signature)
                else Given(names[label], one)
                for label, one in self._stored.items()
            }
        models = self.given_models()
        tuned = {"ancestor": self.base(), "clean": self.given_clean()}
        names = variables(models, "signature")
        return {
            label: Call(wb.signature, (), tuned | {"robust": model}, names[label]) for label, model in models.items()
        }

    def alike(self) -> Call:
        """`wb.similarity` of the signatures."""
        keywords = {} if self._types is None else {"types": self._types}
        return Call(wb.similarity, (self.signatures(),), keywords)

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Names or globs of each group; an empty one stands for all layers."""
        groups = [
            tuple(filter(None, (one.strip() for one in part.split(",")))) for part in self.groups.value.split(";")
        ]
        return [group for group in groups if group] or [()]

    def policy(self) -> dict[str, Any]:
        """The keyword of the policy of running statistics, with what it needs.

        Raises:
            wb.ArgumentError: the networks have some, and nothing was chosen; or there is nothing to run.
        """
        chosen = self.batch_norm.value
        if chosen == NO_NORM:
            return {}
        if chosen == UNCHOSEN:
            raise wb.ArgumentError(
                "choose what becomes of running statistics, which are no arithmetic: 'untouched', 'copied' from the "
                "robust network, or 're-estimated' on data; the numbers depend on it."
            )
        if chosen != "re-estimated":
            return {"batch_norm": chosen}
        if self.network.evaluator is None:
            raise wb.ArgumentError("batch_norm='re-estimated' runs the network: give the explorer evaluator=.")
        evaluator = Given("evaluator", self.network.evaluator)
        own = Part(evaluator, ".data", lambda one: one.data)
        return {
            "batch_norm": chosen,
            "data": own if self._data is None else Given("data", self._data),
            "module": Part(evaluator, ".module", lambda one: one.module),
        }

    def evaluation(self, weights: Call | Given, name: str) -> Call:
        """Loss and metrics of weights.

        Raises:
            wb.ArgumentError: there is no evaluator.
        """
        return Call(wb.Evaluator.__call__, (self.network.evaluated(), weights), name=name)

    def know_model(self, weights: wb.Weights) -> None:
        """Offers a policy where the base has running statistics."""
        normalised = any(name.rpartition(".")[2] in STATISTICS for name in weights)
        options = [UNCHOSEN, *POLICIES] if normalised else [NO_NORM]
        if list(self.batch_norm.options) != options:
            self.batch_norm.options = options
            self.batch_norm.value = self._policy or UNCHOSEN if normalised else NO_NORM
            self.batch_norm.disabled = not normalised

    def know_labels(self, labels: Sequence[str]) -> None:
        """Lists the models that a result has; the chosen one stays."""
        options = [(EVERY, None), *((label, label) for label in labels)]
        if list(self.model.options) != options:
            chosen = self.model.value
            self.model.options = options
            self.model.index = 1 + list(labels).index(chosen) if chosen in labels else 0

    def release(self) -> None:
        """Lets go of the models, the signatures, the module and the data."""
        for field in (self.models, self.clean, self.floor):
            field.release()
        self.network, self._data, self._stored = Network(), None, {}


def check_signatures(signatures: Any) -> None:
    """Refuses what stands for no signatures.

    Raises:
        wb.ArgumentError: it is no mapping of labels to signatures or paths of their files.
    """
    if signatures is None:
        return
    told = "expected label → Signature, or the path of its file, as in {'blur': 'blur.signature.safetensors'}"
    if not isinstance(signatures, Mapping):
        raise wb.ArgumentError(f"signatures is {type(signatures).__name__}: {told}.")
    for label, one in signatures.items():
        if not isinstance(label, str) or not isinstance(one, str | os.PathLike | wb.Signature):
            raise wb.ArgumentError(f"signatures[{label!r}] is {type(one).__name__}: {told}.")


def joined(names: str | Sequence[str] | None) -> str:
    """Names as they are typed.

    Raises:
        wb.ArgumentError: one of them has a comma or semicolon, or is no text.
    """
    asked = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names or ())
    if bad := next((one for one in asked if not isinstance(one, str) or "," in one or ";" in one), None):
        raise wb.ArgumentError(f"layers has {bad!r}: expected names or globs without commas and semicolons.")
    return ", ".join(asked)


def variables(labels: Any, kind: str) -> dict[str, str]:
    """A variable for what each label stands for.

    Example:
        >>> variables(["blur", "4-bit", "4 bit"], "model")
        {'blur': 'blur_model', '4-bit': 'model_4_bit', '4 bit': 'model_4_bit_2'}
    """
    found: dict[str, str] = {}
    for label in labels:
        word = re.sub(r"\W+", "_", str(label), flags=re.ASCII)
        name = first = f"{word}_{kind}" if word[:1].isalpha() and word.isidentifier() else f"{kind}_{word}"
        number = 2
        while name in found.values():
            name, number = f"{first}_{number}", number + 1
        found[label] = name
    return found

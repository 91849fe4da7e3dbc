"""The inputs that the views of `wb.ui.ConnectivityExplorer` share, and the calls that they stand for."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import choices, one_of, whole
from workbench_widgets.call import Call, Given
from workbench_widgets.checkpoint import CheckpointField, CheckpointsField
from workbench_widgets.evaluation import UNCHOSEN, Network
from workbench_widgets.shared import FieldStyle

METHODS = choices(wb.match, "method")
NO_NORM, POLICIES = "not in this module", choices(wb.barrier, "batch_norm")
MOST = 10**6  # restarts, and seeds
POINTS = 25  # the default of wb.barrier
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class ConnectivityInputs:
    """The checkpoints beside A, and how they are matched and evaluated.

    Args:
        style: of the labels.
        first: the checkpoint A.
        b: the checkpoint B.
        others: further checkpoints.
        network: what they are run in.
        method: `weights`, `activations` or `correlation`.
        restarts: further starts of weight matching.
        seed: of the random starts and directions.
        gammas: thresholds for the alignment of singular vectors.
        batch_norm: `reset`, `interpolate`, or None for not chosen.
        points: of a line between two.

    Raises:
        wb.ArgumentError: a value that its control does not offer.
    """

    def __init__(
        self,
        style: FieldStyle,
        *,
        first: Callable[[], Any],
        b: Any,
        others: Any,
        network: Network,
        method: str,
        restarts: int,
        seed: int,
        gammas: Sequence[float],
        batch_norm: str | None,
        points: int,
    ) -> None:
        if network.evaluator is not None and (network.module is not None or network.data is not None):
            raise wb.ArgumentError("evaluator has a module and data of its own: leave out module= and data=.")
        one_of("method", method, METHODS)
        one_of("batch_norm", batch_norm, (*POLICIES, None))
        whole("restarts", restarts, 0, MOST)
        whole("seed", seed, 0, MOST)
        whole("points", points, 2, 1001)
        self.network, self._first = network, first
        self.b = CheckpointField(
            b, "Checkpoint B", style, tooltip="the other end: a path, or the name of a model in the list"
        )
        more = others if isinstance(others, list | tuple) else [others]
        self.others = CheckpointsField(
            more, "Further ones", style, "checkpoints that are matched together with A and B"
        )
        self.method = ipw.Dropdown(
            options=METHODS,
            value=method,
            description="Match by",
            tooltip="weights, or what the units do on the data; permutations of B's units that bring it near A",
            style=style,
        )
        self.restarts = ipw.BoundedIntText(
            restarts, 0, MOST, description="Restarts", tooltip="further starts from random orders", style=style
        )
        self.seed = ipw.BoundedIntText(seed, 0, MOST, description="Seed", tooltip="of random starts", style=style)
        self.gammas = ipw.Text(
            ", ".join(f"{gamma:g}" for gamma in gammas),
            description="γ",
            placeholder="none: no singular vectors",
            tooltip="singular vectors with σ ≥ γ·σmax are compared; several, comma-separated",
            continuous_update=False,
            style=style,
        )
        normalised = network.normalised
        self.batch_norm = ipw.Dropdown(
            options=[UNCHOSEN, *POLICIES] if normalised else [NO_NORM],
            value=(batch_norm or UNCHOSEN) if normalised else NO_NORM,
            disabled=not normalised,
            description="Batch norm",
            tooltip="running statistics between checkpoints: estimated anew on the data, or mixed like weights",
            style=style,
        )
        self.pair = ipw.Dropdown(
            options=self._pairs(), description="Between", tooltip="the two ends of the line", style=style
        )
        self.points = ipw.BoundedIntText(
            points, 2, 1001, description="Points", tooltip="on the line, with both ends", style=style
        )
        for control in (self.others, self.method):
            control.observe(lambda _: self.enable(), "value")
        self.enable()

    @property
    def matching_widgets(self) -> list[ipw.DOMWidget]:
        """The controls of the matching."""
        return [self.method, self.restarts, self.seed]

    @property
    def line_widgets(self) -> list[ipw.DOMWidget]:
        """The controls of a line between two checkpoints."""
        return [*self.matching_widgets, self.batch_norm, self.pair]

    def models(self) -> list[Given]:
        """All checkpoints, named by letters.

        Raises:
            wb.ArgumentError: A or B is missing.
        """
        if not self.b.filled:
            raise wb.ArgumentError("no checkpoint B yet: type the path of a file or folder, or pass a model.")
        found = [self._first(), self.b.model, *self.others.models]
        return [Given(letter, model) for letter, model in zip(LETTERS, found, strict=False)]

    def groups(self) -> Call:
        """The permutation groups; by a template where there is no module."""
        network = self.network
        if network.runs:
            arguments: tuple[Any, ...] = (network.evaluated(),)
        elif network.module is not None:
            inputs = () if network.example_inputs is None else (Given("example_inputs", network.example_inputs),)
            arguments = (Given("module", network.module), *inputs)
        else:
            arguments = (Given(LETTERS[0], self._first()),)
        return Call(wb.permutation_groups, arguments, name="groups")

    def matching(self) -> Call:
        """The matching of all checkpoints."""
        models = self.models()
        keywords: dict[str, Any] = {"evaluator": self.network.evaluated()} if self.network.runs else {}
        if (gammas := self._gammas()) != [0.0, 0.3]:
            keywords["gammas"] = gammas
        if self.seed.value:
            keywords["seed"] = self.seed.value
        if len(models) > 2:
            return Call(wb.match_many, (self.groups(), models), keywords, "matching")
        if self.method.value != "weights":
            keywords["method"] = self.method.value
        elif self.restarts.value:
            keywords["restarts"] = self.restarts.value
        return Call(wb.match, (self.groups(), *models), keywords, "matching")

    def _pairs(self) -> list[tuple[str, tuple[int, int]]]:
        """Pairs of checkpoints by their labels."""
        count = 2 + len(self.others.models)
        pairs = itertools.combinations(range(count), 2)
        return [(f"{LETTERS[one].upper()} and {LETTERS[other].upper()}", (one, other)) for one, other in pairs]

    def line(self, name: str, *, matched: bool, beside: tuple[Call, ...] = ()) -> Call:
        """The call for the loss along the line between two, as they are or matched."""
        models = self.models()
        ends = [self.matched(number) if matched else models[number] for number in self.pair.value]
        keywords: dict[str, Any] = {} if self.points.value == POINTS else {"points": self.points.value}
        keywords["batch_norm"] = self.policy()
        return Call(wb.barrier, (self.network.evaluated(), *ends), keywords, name, beside)

    def lines(self) -> tuple[Call, Call]:
        """The lines before and after matching; the first is shown beside the second."""
        before = self.line("before", matched=False)
        return before, self.line("after", matched=True, beside=(before,))

    def matched(self, number: int) -> Given | Call:
        """A checkpoint with its units in the order of the matching; A stays as it is."""
        models = self.models()
        if number == 0:
            return models[0]
        keywords = {"model": number} if len(models) > 2 else {}
        return Call(wb.Matching.apply, (self.matching(), models[number]), keywords, f"{models[number].name}_matched")

    def policy(self) -> str | None:
        """The policy of batch norm.

        Raises:
            wb.ArgumentError: the module has batch norm, and nothing was chosen.
        """
        if self.batch_norm.value == UNCHOSEN:
            raise wb.ArgumentError(
                "choose what becomes of batch norm between the checkpoints: 'reset' estimates running statistics anew "
                "on the data, 'interpolate' mixes them like weights; the numbers depend on it."
            )
        return None if self.batch_norm.value == NO_NORM else str(self.batch_norm.value)

    def enable(self) -> None:
        """Greys out what has no meaning for what is chosen, and lists the pairs that there are."""
        several = bool(self.others.models)
        self.method.disabled = several
        self.restarts.disabled = several or self.method.value != "weights"
        if list(self.pair.options) != (pairs := self._pairs()):
            self.pair.options = pairs

    def release(self) -> None:
        """Lets go of the models, the module and the data."""
        self.b.release()
        self.others.release()
        self.network = Network()

    def _gammas(self) -> list[float]:
        try:
            return [float(part) for part in self.gammas.value.split(",") if part.strip()]
        except ValueError:
            raise wb.ArgumentError(
                f"γ is {self.gammas.value!r}: expected numbers from 0 to 1, comma-separated."
            ) from None

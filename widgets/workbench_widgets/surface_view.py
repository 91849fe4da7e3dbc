"""The loss on a plane in weight space, as it fills."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.arguments import whole
from workbench_widgets.call import Call
from workbench_widgets.connectivity_view import ConnectivityView
from workbench_widgets.shared import FieldStyle

RANDOM, MATCHED, GIVEN = "random directions at A", "A, B and matched B", "A, B and C"


class SurfaceView(ConnectivityView):
    """A plane, how finely it is looked at, and where finished points are kept."""

    NAME: ClassVar[str] = "surface"
    SHOWS: ClassVar[type[wb.Result]] = wb.Surface
    FIGURES: ClassVar[tuple[str, ...]] = ("surface",)
    TABLE: ClassVar[str | None] = "anchors"
    HEIGHT: ClassVar[int] = 520

    def make(self, style: FieldStyle, initial: Mapping[str, Any]) -> list[ipw.DOMWidget]:
        """The plane and its grid."""
        whole("resolution", initial["resolution"], 2, 201)
        self.plane = ipw.Dropdown(
            options=[MATCHED, RANDOM], description="Plane", tooltip="what the plane goes through", style=style
        )
        self.resolution = ipw.BoundedIntText(
            initial["resolution"], 2, 201, description="Points", tooltip="along each side", style=style
        )
        self.cache = ipw.Text(
            "",
            description="Keep in",
            placeholder="a folder, for later sessions",
            tooltip="finished points are kept there, so that a cancelled run goes on; else for this session",
            continuous_update=False,
            style=style,
        )
        self._kept: tempfile.TemporaryDirectory[str] | None = None
        self.inputs.others.observe(lambda _: self._list_planes(), "value")
        self._list_planes()
        return [self.plane, self.resolution, self.cache]

    def _list_planes(self) -> None:
        planes = [MATCHED, RANDOM, *([GIVEN] if self.inputs.others.models else [])]
        chosen = self.plane.value if self.plane.value in planes else planes[0]
        self.plane.options, self.plane.value = planes, chosen

    @property
    def widgets(self) -> list[ipw.DOMWidget]:
        """The policy of batch norm, its own controls, and those of the matching or the seed where they count."""
        more = {RANDOM: [self.inputs.seed], MATCHED: self.inputs.matching_widgets}
        return [*more.get(self.plane.value, []), self.inputs.batch_norm, *self.own]

    def call(self) -> Call:
        """`wb.surface`."""
        models, evaluator = self.inputs.models(), self.inputs.network.evaluated()
        keywords: dict[str, Any] = {} if self.resolution.value == 21 else {"points": self.resolution.value}
        if self.plane.value == RANDOM:
            keywords |= {"seed": self.inputs.seed.value} if self.inputs.seed.value else {}
            through: tuple[Any, ...] = (models[0],)
        elif self.plane.value == GIVEN:
            through = tuple(models[:3])
        else:
            through = (models[0], models[1], self.inputs.matched(1))
        keywords["batch_norm"] = self.inputs.policy()
        if self.cache.value.strip():
            keywords["cache"] = self.cache.value.strip()
        return Call(wb.surface, (evaluator, *through), keywords)

    def compute(self, call: Call, progress: Callable[[wb.Progress], None]) -> wb.Result:
        """The surface; its points are kept for this session where no folder is named."""
        if "cache" in call.keywords:
            return super().compute(call, progress)
        if self._kept is None:
            self._kept = tempfile.TemporaryDirectory(prefix="workbench-surface-")
        kept = {**call.keywords, "cache": Path(self._kept.name)}
        _, generation = self.memory.recalled()
        result = Call(call.function, call.positional, kept, call.name).run(progress, self.memory)
        self.memory.keep(call, result, generation)
        return result

    def release(self) -> None:
        """Removes the points that were kept for this session."""
        if self._kept is not None:
            self._kept.cleanup()

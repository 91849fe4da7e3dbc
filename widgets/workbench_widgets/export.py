"""The export panel: the shown figures, and the data in them, as files for a paper."""

import base64
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as ipw

import workbench as wb
from workbench_widgets.shared import PlainLayout, button, family, fields, line, shared
from workbench_widgets.style import status_html

MIME = {
    "pdf": "application/pdf",
    "eps": "application/postscript",
    "svg": "image/svg+xml",
    "png": "image/png",
    "csv": "text/csv",
}


class ExportPanel(ipw.VBox):
    """Writes a shown figure beside the notebook and offers it for download.

    Args:
        figures: gives what can be exported now: name → figure, or why there is none.
    """

    def __init__(self, figures: Callable[[], Mapping[str, wb.FigureSpec | str]]) -> None:
        self._figures = figures
        wide = fields("70px")
        self.figure = ipw.Dropdown(
            options=list(figures()), description="Figure", tooltip="which of the figures shown is written", style=wide
        )
        self.format = ipw.Dropdown(
            options=list(MIME), description="Format", tooltip="of the file; csv has the numbers drawn", style=wide
        )
        self.venue = ipw.Dropdown(
            options=list(wb.FigureSpec.VENUES),
            description="Venue",
            tooltip="whose fonts, sizes and widths of columns it takes",
            style=wide,
        )
        self.width = ipw.Dropdown(description="Width", tooltip="of the figure in print", style=wide)
        self._offer_widths()
        self.name = ipw.Text(
            "figure",
            description="File name",
            tooltip="path beside the notebook; its ending is the format's",
            style=wide,
        )
        self.button = button("Export", "download", "write the file beside the notebook")
        self.message = line()
        self.button.on_click(self._clicked)
        self.venue.observe(self._offer_widths, "value")
        self.figure.observe(self._say_nothing, "value")
        rows = [self.figure, self.format, self.venue, self.width, self.name, self.button]
        super().__init__([ipw.HBox(rows, layout=ipw.Layout(flex_flow="row wrap")), self.message])

    def export(self) -> Path:
        """Writes the chosen figure and returns the file's path.

        Raises:
            wb.FigureError: the figure is not drawn, there is no name, or the name's folder does not exist.
        """
        spec = self._figures()[self.figure.value]
        if isinstance(spec, str):
            raise wb.FigureError(f"{self.figure.value} is not drawn: {spec.removesuffix('.')}.")
        if not self.name.value.removesuffix(f".{self.format.value}").strip():
            raise wb.FigureError("type a name for the file.")
        path = Path(self.name.value.removesuffix(f".{self.format.value}") + f".{self.format.value}")
        return spec.save(path, style=self.venue.value, width=self.width.value)

    def _offer_widths(self, _: Any = None) -> None:
        """The widths of the chosen venue, the one that was chosen if it has it: some venues have one column only."""
        widths, chosen = wb.FigureSpec.VENUES[self.venue.value], self.width.value
        self.width.options = [(f"{name} ({inches * 25.4:.0f} mm)", name) for name, inches in widths.items()]
        self.width.value = chosen if chosen in widths else next(iter(widths))

    def _say_nothing(self, _: Any) -> None:
        self.message.value = ""

    def _clicked(self, _: Any) -> None:
        self.message.value = ""
        try:
            path = self.export()
        except Exception as error:  # ipywidgets would swallow it
            self.message.value = status_html(str(error), error=True)
            return
        data = base64.b64encode(path.read_bytes()).decode()
        link = f'<a download="{escape(path.name)}" href="data:{MIME[self.format.value]};base64,{data}">Download</a>'
        self.message.value = status_html(f"saved {path} ({path.stat().st_size / 1e3:.1f} kB)") + link


class LateExports(ipw.VBox):
    """A folded place for the panel, which is made when it is asked for.

    Args:
        figures: as the panel's.
    """

    def __init__(self, figures: Callable[[], Mapping[str, wb.FigureSpec | str]]) -> None:
        self._figures = figures
        self._panel: ExportPanel | None = None
        super().__init__([line("these controls come when the kernel has time")], layout=shared(PlainLayout))

    @property
    def panel(self) -> ExportPanel:
        """The one that stands here from now on."""
        if self._panel is None:
            with family():
                self._panel = ExportPanel(self._figures)
            (waiting,), self.children = self.children, [self._panel]
            waiting.close()
        return self._panel

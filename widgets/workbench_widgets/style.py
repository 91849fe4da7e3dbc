"""What explorers bring into the page: colours that follow JupyterLab's theme or their own, keys, the fit of plots."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Literal

import anywidget
import ipywidgets as ipw

Theme = Literal["auto", "light", "dark"]

CSS = """
.wb-explorer { --wb-ink: var(--jp-ui-font-color1, #212121); --wb-quiet: var(--jp-ui-font-color2, #616161);
  --wb-paper: transparent; --wb-under: var(--jp-layout-color0, #ffffff);
  --wb-error: var(--jp-error-color1, #b71c1c); color: var(--wb-ink);
  background: var(--wb-paper); padding: 4px 8px 8px 8px; }
.wb-explorer.wb-light { --wb-ink: #212121; --wb-quiet: #616161; --wb-paper: #ffffff; --wb-under: #ffffff;
  --wb-error: #b71c1c; --jp-widgets-label-color: #212121; --jp-ui-font-color1: #212121; color-scheme: light;
  --jp-layout-color0: #ffffff; --jp-layout-color1: #ffffff; --jp-layout-color2: #eeeeee; --jp-layout-color3: #bdbdbd;
  --jp-border-color1: #bdbdbd; --jp-widgets-input-background-color: #ffffff; --jp-widgets-input-color: #212121;
  --jp-widgets-input-border-color: #bdbdbd; --jp-ui-font-color2: #616161; --jp-ui-font-color3: #757575;
  --jp-ui-inverse-font-color1: #ffffff; --jp-brand-color1: #1976d2; }
.wb-explorer.wb-light table.dataTable tbody td { border-color: #e0e0e0 !important; }
.wb-explorer.wb-dark { --wb-ink: #e6e6e6; --wb-quiet: #b0b0b0; --wb-paper: #161616; --wb-under: #161616;
  --wb-error: #ff8a80; --jp-widgets-label-color: #e6e6e6; --jp-ui-font-color1: #e6e6e6; color-scheme: dark;
  --jp-layout-color0: #161616; --jp-layout-color1: #202020; --jp-layout-color2: #2c2c2c; --jp-layout-color3: #3a3a3a;
  --jp-border-color1: #4a4a4a; --jp-widgets-input-background-color: #202020; --jp-widgets-input-color: #e6e6e6;
  --jp-widgets-input-border-color: #4a4a4a; --jp-ui-font-color2: #b0b0b0; --jp-ui-font-color3: #8f8f8f; }
.wb-explorer.wb-dark input::placeholder { color: #9a9a9a; }
.wb-explorer .jupyter-widget-Collapse-header { color: var(--wb-ink); }
.wb-explorer a[download] { color: var(--wb-ink); text-decoration: underline; }
.wb-explorer .js-plotly-plot { contain: layout style; }
.wb-explorer .js-plotly-plot text { fill: var(--wb-ink) !important; }
.wb-explorer .js-plotly-plot .legend .bg { fill: transparent !important; }
.wb-explorer .widget-readout { color: var(--wb-ink); }
.wb-explorer table.dataTable { --dt-row-selected: 0, 90, 180; }
.wb-explorer table.dataTable, .wb-explorer .dt-container { color: var(--wb-ink); }
.wb-explorer .itables_anywidget, .wb-explorer .dt-container { background: transparent !important; }
.wb-explorer .dt-search input { background: transparent !important; color: inherit !important;
  border-color: var(--wb-quiet) !important; }
.wb-explorer .wb-table { overflow: hidden; }
.wb-explorer .dt-layout-table > .dt-layout-cell { max-height: 340px; overflow: auto; }
.wb-explorer .dt-layout-table thead { position: sticky; top: 0; z-index: 1; }
.wb-explorer .dt-layout-table thead th { background: var(--wb-under); }
.wb-explorer .wb-status { color: var(--wb-quiet); min-height: 1.4em; line-height: 1.35; }
.wb-explorer .wb-error { color: var(--wb-error); font-weight: 600; white-space: pre-wrap; line-height: 1.35; }
.wb-explorer .widget-html-content { min-width: 0; overflow-wrap: anywhere; }
.wb-explorer .wb-column > .jupyter-widgets { width: calc(100% - 4px); }
.wb-explorer .wb-plot { padding-left: 8px; }
.wb-explorer .wb-plot-name { color: var(--wb-quiet); font-size: 12px; }
.wb-explorer .wb-about { max-height: 320px; overflow: auto; font-size: 12px; line-height: 1.5; color: var(--wb-ink); }
.wb-explorer .wb-about h4 { margin: 8px 0 2px 0; font-size: 12px; }
.wb-explorer .wb-about ul { margin: 0; padding-left: 18px; }
.wb-explorer .wb-about table { border-collapse: collapse; }
.wb-explorer .wb-about th, .wb-explorer .wb-about td { text-align: left; padding: 0 14px 0 0; vertical-align: top;
  overflow-wrap: anywhere; }
.wb-explorer .wb-about td:first-child { min-width: 9em; }
.wb-explorer .wb-datapoints { padding: 0 8px; line-height: 1.3; }
.wb-explorer .wb-datapoints h4 { margin: 8px 0 4px 0; font-size: 12px; color: var(--wb-ink); }
.wb-explorer .wb-datapoints ul { display: flex; flex-flow: row wrap; gap: 12px; margin: 0; padding: 0;
  list-style: none; }
.wb-explorer .wb-datapoints li { display: flex; flex-flow: column; gap: 2px; min-width: 112px;
  max-width: 420px; color: var(--wb-ink); }
.wb-explorer .wb-datapoints small { color: var(--wb-quiet); font-size: 11px; }
.wb-explorer .wb-coordinate { font-size: 12px; font-variant-numeric: tabular-nums; }
.wb-explorer .wb-image { position: relative; display: block; }
.wb-explorer .wb-image img { width: 100%; height: 100%; image-rendering: pixelated; display: block; margin: 0;
  max-width: none; }
.wb-explorer .wb-image i { position: absolute; box-sizing: border-box; border: 2px solid #D55E00; }
.wb-explorer .wb-tokens { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.wb-explorer .wb-tokens mark { background: #E69F00; color: #000000; padding: 0 2px; }
.wb-explorer .wb-bars rect { fill: #0072B2; }
.wb-explorer .wb-heading { margin: 10px 0 2px 4px; font-size: 13px; color: var(--wb-ink); }
.wb-explorer .wb-tabs { width: 100%; }
.wb-explorer .wb-tabs > label { position: absolute; width: 1px; height: 1px; overflow: hidden; }
.wb-workbench .wb-explorer { padding: 0; }
.wb-explorer .wb-unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; }
.wb-explorer .wb-code textarea { font-family: var(--jp-code-font-family, monospace); font-size: 12px; opacity: 1; }
"""


class PageStyle(anywidget.AnyWidget):
    """The style sheet of explorers, their keys and folds, and the fit of their plots; a widget without room.

    Args:
        on_painted: called when a page that shows it has painted what it has, and rests.
    """

    _esm = Path(__file__).with_name("page.js").read_text()  # anywidget never frees the widgets of a path
    _css = CSS

    def __init__(self, on_painted: Callable[[], None] | None = None) -> None:
        super().__init__(layout=ipw.Layout(height="0", margin="0", overflow="hidden"))
        if on_painted is not None:
            self.on_msg(lambda *_: on_painted())


def status_html(text: str, *, error: bool = False) -> str:
    """A line of status, announced to screen readers; errors as alerts."""
    role, kind = ("alert", "wb-error") if error else ("status", "wb-status")
    sign = "⚠ " if error else ""
    return f'<div role="{role}" aria-live="polite" class="{kind}">{sign}{escape(text)}</div>'

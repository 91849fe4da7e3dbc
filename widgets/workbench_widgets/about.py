"""What a checkpoint says of itself, and what was renamed, left out or guessed on opening it."""

from collections.abc import Iterable
from html import escape

import workbench as wb

MOST = 200  # renames listed; the rest is counted


def about_html(weights: wb.Weights) -> str:
    """Notes, renames, ties and metadata as a page's fragment."""
    ties = [(info.name, info.tied_to) for info in weights.infos.values() if info.tied_to]
    ties_names = {name for name, _ in ties}
    renames = [(new, old) for new, old in weights.renames.items() if new not in ties_names]
    facts = [
        ("source", weights.source),
        ("tensors", f"{len(weights):,}, {weights.elements:,} elements, {weights.bytes:,} bytes as stored"),
        ("fingerprint of names and shapes", weights.fingerprint),
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in weights.notes) or "<li>nothing to report</li>"
    return (
        '<div class="wb-about">'
        f"<h4>Notes</h4><ul>{notes}</ul>"
        f"<h4>Checkpoint</h4>{_table(facts)}"
        f"{_section('Renamed', renames, ('name here', 'name in the file'))}"
        f"{_section('Tied', ties, ('name', 'another name of'))}"
        f"{_section('Metadata', weights.metadata.items(), ('key', 'value'))}"
        "</div>"
    )


def _section(title: str, pairs: Iterable[tuple[str, str | None]], heads: tuple[str, str]) -> str:
    every = list(pairs)
    if not every:
        return ""
    rest = f"<p>… and {len(every) - MOST:,} more</p>" if len(every) > MOST else ""
    return f"<h4>{title} ({len(every):,})</h4>{_table(every[:MOST], heads)}{rest}"


def _table(pairs: Iterable[tuple[str, str | None]], heads: tuple[str, str] | None = None) -> str:
    top = f"<tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr>" if heads else ""
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>" for key, value in pairs)
    return f"<table>{top}{rows}</table>"

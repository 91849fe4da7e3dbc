"""TeX → MathML, which browsers draw without a library."""

import re
from html import escape

TEX = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$([^$\n]+?)\$|\\\((.+?)\\\)", re.DOTALL)


def mathml(tex: str, *, display: bool = False) -> str:
    """A formula as MathML; as text in TeX's own words where it cannot be converted."""
    try:
        from latex2mathml.converter import convert

        return str(convert(tex, display="block" if display else "inline"))
    except Exception:  # unknown commands raise many kinds; without the converter, words are better than nothing
        mark = "$$" if display else "$"
        return f'<code class="wb-formula">{escape(f"{mark}{tex}{mark}")}</code>'


def with_formulas(tex: str) -> str:
    """The HTML of a `text/latex` output: what stands between dollars or brackets, or all of it, is a formula."""
    parts, end = [], 0
    for found in TEX.finditer(tex):
        parts.append(escape(tex[end : found.start()]))
        parts.append(mathml(next(filter(None, found.groups())), display=bool(found[1] or found[2])))
        end = found.end()
    return "".join([*parts, escape(tex[end:])]) if parts else mathml(tex, display=True)

"""What HTML asks a network for: put inside, or named and left out."""

import base64
import mimetypes
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from bs4.element import Tag

LOADS = ("src", "srcset", "poster", "data", "background", "xlink:href", "href")  # attributes that load at once
LINKS = {"a", "area"}  # whose href waits for a click
CSS = re.compile(r"@import[^;]*;?|url\(\s*(?!['\"]?(?:data:|#|\s))[^)]*\)", re.IGNORECASE)
# what plotly's outputs load from elsewhere: the page has its own library, and formulas in figures stay text
KNOWN = re.compile(r"plotly|mathjax|require(\.min)?\.js|jquery", re.IGNORECASE)
BUNDLE = re.compile(r"plotly\.js v\d|import\s*[\"']https?://[^\"']*plotly")


class Inside:
    """Makes HTML self-contained, and remembers what could not be brought in.

    Args:
        folder: the notebook's; files in it may be embedded, others not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.missing: dict[str, None] = {}

    def notes(self) -> list[str]:
        """A sentence on what is missing; none if nothing is."""
        names = list(self.missing)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        said = f"not in the page, because it is outside the notebook: {', '.join(names[:3])}{more}."
        return [said] if names else []

    def cleaned(self, html: str) -> str:
        """The HTML without anything that would be loaded; pictures beside the notebook are put in."""
        if "<" not in html:
            return html
        soup = BeautifulSoup(html, features="html.parser")
        for tag in soup.find_all(True):
            if not tag.decomposed:
                self._clean(tag)
        for tag in soup.find_all("style"):
            tag.string = self._css(tag.get_text())
        return str(soup)

    def _clean(self, tag: Tag) -> None:
        if tag.name == "base" or (tag.name == "meta" and tag.get("http-equiv")):
            tag.decompose()  # they would move or replace the page
            return
        if tag.name == "script" and BUNDLE.search(tag.get_text()[:2000]):
            tag.decompose()
            return
        if style := tag.get("style"):
            tag["style"] = self._css(str(style))
        for name in [name for name in LOADS if tag.get(name) is not None]:
            where = str(tag[name]).strip()
            waits = (name.endswith("href") and tag.name in LINKS) or (name == "data" and tag.name != "object")
            if waits or where.startswith(("data:", "#", "blob:")):
                continue
            if name == "srcset" or not self._bring_in(tag, name, where):
                self._leave_out(tag, name, where)
                return

    def _bring_in(self, tag: Tag, name: str, where: str) -> bool:
        """Whether a file beside the notebook could be embedded."""
        parts = urlsplit(where)
        if parts.scheme or parts.netloc or not parts.path:
            return False
        file = (self.folder / unquote(parts.path)).resolve()
        if not file.is_relative_to(self.folder) or not file.is_file():
            return False
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        tag[name] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"
        return True

    def _leave_out(self, tag: Tag, name: str, where: str) -> None:
        if name == "srcset":
            del tag["srcset"]  # src, which stands beside it, is looked at by itself
            return
        if tag.name in ("script", "link") and KNOWN.search(where):
            tag.decompose()
            return
        self.missing[where] = None
        if tag.name in ("img", "iframe", "video", "audio", "embed", "object"):
            note = BeautifulSoup("", features="html.parser").new_tag("span", attrs={"class": "wb-note"})
            told = str(tag.get("alt") or tag.get("title") or tag.name)
            note.string = f"{told} (not in this file: {where})"
            tag.replace_with(note)
        elif tag.name in ("script", "link", "source", "track"):
            tag.decompose()
        else:
            del tag[name]

    def _css(self, css: str) -> str:
        def without(found: re.Match[str]) -> str:
            self.missing[found[0].strip()] = None
            return "" if found[0].startswith("@") else "none"

        return CSS.sub(without, css)

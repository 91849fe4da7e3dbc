"""What a widget says where no notebook shows it: in a terminal, a saved notebook, a front end without widgets."""

from typing import Any, ClassVar


class Unseen:
    """The part of a widget that is text."""

    HERE: ClassVar[str] = ".run() gives the result and .code() its call"  # what serves without a screen

    def said(self) -> str:
        """What it would say on the screen, in one line."""
        raise NotImplementedError

    def __repr__(self) -> str:
        if getattr(self, "_closed", False):
            return f"{type(self).__name__}: closed"
        hint = f"shown in a notebook only; here {self.HERE}; wb.doctor() says more"
        return f"{type(self).__name__}: {self.said()}\n{hint}"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)  # type: ignore[misc]
        if isinstance(bundle, dict):
            bundle["text/plain"] = repr(self)  # whole: ipywidgets cuts it
        return bundle

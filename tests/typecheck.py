"""The run-time type checker of the tests: beartype, with ints accepted as floats as PEP 484 says.

jaxtyping asks for the checks of a nested function whenever the function around it is called, and for those of a
dataclass whenever one is made; each time beartype would write and compile the same code. So it does so once.
"""

from collections.abc import Callable, Hashable
from typing import Any

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checked: dict[Hashable, Callable[..., Any]] = {}


def check(function: Any) -> Any:
    """The function, or class, with its types checked."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_filename != "<string>" or function.__closure__:
        return _beartype(function)
    # jaxtyping wrote this function: it has a signature and no work to do, so one with the same signature is the same
    given = len(function.__defaults__ or ()), tuple(function.__kwdefaults__ or ())
    key = function.__module__, function.__qualname__, code, given, tuple(function.__annotations__.items())
    try:
        if key not in _checked:
            _checked[key] = _beartype(function)
    except TypeError:  # an annotation that is no key
        return _beartype(function)
    return _checked[key]

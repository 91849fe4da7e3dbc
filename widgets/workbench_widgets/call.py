"""A call of a public function, to run and to show as code."""

import dataclasses
import inspect
import os
import pprint
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import workbench as wb

WIDEST = 100  # columns of a line of code
MISSING = object()  # in place of what a call returned, which may be None


@dataclass(frozen=True, eq=False)
class Given:
    """An argument that several calls share: in the code a path is assigned to its name, an object is said to be given.

    Attributes:
        name: its name in the code; an object that the notebook has a name for keeps that.
        value: the path or the object.
    """

    name: str
    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Given) or self.name != other.name:
            return False
        return self.value is other.value or (isinstance(self.value, str) and self.value == other.value)

    @property
    def variable(self) -> str:
        """The variable that holds it."""
        return (variable_of(self.value) if self._is_object else None) or self.name

    def code(self) -> str:
        """The line that makes it, or says what it is."""
        if self._is_object:
            return f"# {self.variable}: the {type(self.value).__name__} that the explorer was given"
        return f"{self.name} = {_told(self.value, self.name)[0]}"

    @property
    def _is_object(self) -> bool:
        """Whether it cannot be written in the code."""
        return not isinstance(self.value, str)


@dataclass(frozen=True, eq=False)
class Call:
    """A call of a public function: what Run does and what Code shows.

    Attributes:
        function: the public function, or a public method of what another call returns.
        positional: its positional arguments; Calls among them are run and shown before, and only once.
        keywords: the keyword arguments that differ from their defaults.
        name: the variable that holds what it returns; by default the function's name.
        beside: calls whose results are shown beside this one's; they do not change what it returns.
    """

    function: Callable[..., Any]
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    beside: tuple["Call", ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Call) or (self.function, self.name) != (other.function, other.name):
            return False
        return _same(self.positional, other.positional) and _same(self.keywords, other.keywords)

    @property
    def variable(self) -> str:
        """The variable that holds what it returns."""
        return self.name or self.function.__name__

    @property
    def parts(self) -> list["Call"]:
        """The calls that it needs, and itself, in the order in which they are made; each once."""
        return self._missing([])

    @property
    def taken(self) -> list[Any]:
        """The arguments that are no calls, of the calls that it needs and its own, in their order."""
        taken = [one for part in self.parts for one in _walked([*part.positional, *part.keywords.values()])]
        return [_value(one, []) if isinstance(one, Given) or _is_given(one) else one for one in taken]

    def rests_on(self, source: Any) -> bool:
        """Whether it takes a model: that path, or that very object."""
        return any(is_source(one, source) for one in self.taken)

    def run(self, progress: Callable[[wb.Progress], None] | None = None, memory: "Memory | None" = None) -> Any:
        """What the call returns.

        Args:
            progress: of this call, and of those before it, which are then named.
            memory: what earlier calls returned: those are not made again, but for this one itself.

        Raises:
            wb.Cancelled: of this call with its `.partial`; of one before it without.
        """
        memory = Memory() if memory is None else memory
        parts = self.parts
        made, generation = memory.recalled(parts[:-1])  # a list of its own: the memory may forget while this runs
        for part in self._missing(made):
            files = stamps(part)
            try:
                value = part._returned(made, progress, named=part is not self)
            except wb.Cancelled as stop:
                stop.partial = stop.partial if part is self else None
                raise
            made.append((part, value))
            memory.keep(part, value, generation, files)
        return made[-1][1]

    def _missing(self, made: "Made") -> list["Call"]:
        """The calls that are to be made, itself the last; what only those need that were made is not."""
        found: list[Call] = []
        for one in _walked([*self.beside, *self.positional, *self.keywords.values()]):
            call = one.call if isinstance(one, Part) else one
            if isinstance(call, Call) and _found(made, call) is MISSING:
                found += [part for part in call._missing(made) if part not in found]
        return [*found, self]

    def _returned(self, made: "Made", progress: Callable[[wb.Progress], None] | None, *, named: bool) -> Any:
        positional = [_value(one, made) for one in self.positional]
        keywords = {name: _value(one, made) for name, one in self.keywords.items()}
        if progress is None:
            return self.function(*positional, **keywords)
        if "progress" not in inspect.signature(self.function).parameters:
            progress(wb.Progress(done=0, total=1, item=self.variable, seconds=0.0))
            return self.function(*positional, **keywords)

        def prefixed(told: wb.Progress) -> None:
            progress(dataclasses.replace(told, item=told.item and f"{self.variable}: {told.item}", partial=None))

        return self.function(*positional, **keywords, progress=prefixed if named else progress)

    def code(self) -> str:
        """The call, after those that it needs, as Python that assigns what each returns to its variable."""
        return "\n".join([*given_code([self]), *calls_code([self])])

    def lines(self) -> list[str]:
        """The call alone."""
        positional, remarks = list(self.positional), list[str]()
        owner, _, name = self.function.__qualname__.rpartition(".")
        head = f"wb.{owner}.{name}" if owner else f"wb.{name}"
        if owner and "self" in inspect.signature(self.function).parameters:
            head = _told(positional.pop(0), "model")[0] + ("" if name == "__call__" else f".{name}")
        parts = []
        for name, value in [*(("", one) for one in positional), *self.keywords.items()]:
            text, remark = _told(value, name or "model")
            parts.append(f"{name}={text}" if name else text)
            remarks += remark
        line = f"{self.variable} = {head}({', '.join(parts)})"
        if len(line) > WIDEST:
            inner = textwrap.indent(",\n".join(parts) + ",", "    ")
            line = f"{self.variable} = {head}(\n{inner}\n)"
        return [*remarks, line]


@dataclass(frozen=True)
class Part:
    """What is taken of what a call returns or of what was given, as an argument of another.

    Attributes:
        call: the call, or what was given.
        path: how it is taken, as Python: `.layers[0]`.
        take: the same as a function.
    """

    call: Call | Given
    path: str
    take: Callable[[Any], Any] = field(compare=False)


PLAIN = (str, int, float, os.PathLike, Call, Given, Part)  # what is equal without being one
Made: TypeAlias = list[tuple[Call, Any]]  # calls, and what each returned
Stamps: TypeAlias = tuple[tuple[str, int, int], ...]  # path, time of the last change, and bytes of files


def stamps(call: Call) -> Stamps:
    """The files that a call and those that it needs read, as they are now; a folder is the files in it."""
    texts = sorted({one for one in call.taken if isinstance(one, str) and one})
    return tuple(stamp for text in texts for stamp in _stamps_of(text))


def _stamps_of(text: str) -> Stamps:
    """Those of a path; nothing of a text that is none, as a layer's name or a glob of any length."""
    try:
        path = Path(text).expanduser()
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        known = [(file, file.stat()) for file in files if file.is_file()]
    except (OSError, ValueError, RuntimeError):
        return ()
    return tuple((str(file), told.st_mtime_ns, told.st_size) for file, told in known)


class Memory:
    """What calls returned, so that a call that comes again need not be made again.

    Attributes:
        alone: held by whoever makes calls that build on it: a module is lent to one computation at a time.
    """

    def __init__(self) -> None:
        self.alone = threading.Lock()
        self._lock = threading.Lock()
        self._kept: Made = []
        self._files: list[tuple[Call, Stamps]] = []  # those that a call read, as they were
        self._generation = 0  # counts what was forgotten

    def find(self, call: Call, absent: Any = None) -> Any:
        """What the call returned; `absent` if it was not made."""
        value = _found(self._kept, call)
        return absent if value is MISSING else value

    @property
    def calls(self) -> list[Call]:
        """The calls that were made."""
        return [call for call, _ in self._kept]

    def recalled(self, calls: Iterable[Call] = ()) -> "tuple[Made, int]":
        """Those of some calls that were made, each with what it returned; and the generation that they are of."""
        with self._lock:
            kept, generation = self._kept, self._generation
        return [(call, value) for call in calls if (value := _found(kept, call)) is not MISSING], generation

    def keep(self, call: Call, value: Any, generation: int, files: "Stamps" = ()) -> None:
        """Remembers what a call returned, unless everything was forgotten since the generation that it began in."""
        with self._lock:
            if generation == self._generation:
                self._kept = [*(pair for pair in self._kept if pair[0] != call), (call, value)]
                self._files = [*(pair for pair in self._files if pair[0] != call), (call, files)]

    def refresh(self) -> None:
        """Lets go of what was read of files that are others now."""
        self.drop([call for call, files in self._files if files and stamps(call) != files])

    def drop(self, calls: Sequence[Call]) -> None:
        """Lets go of what some calls returned."""
        with self._lock:
            self._kept = [pair for pair in self._kept if pair[0] not in calls]
            self._files = [pair for pair in self._files if pair[0] not in calls]

    def drop_value(self, value: Any) -> None:
        """Lets go of what calls returned, where it is that very object."""
        with self._lock:
            self._kept = [pair for pair in self._kept if pair[1] is not value]

    def forget(self) -> None:
        """Lets go of everything, also of what is being made."""
        with self._lock:
            self._kept, self._files = [], []
            self._generation += 1


def script(call: Call, remark: str, figures: Iterable[str], also: Iterable[Call] = ()) -> str:
    """Python that makes a call, its frame and figures, and others that go with it; a remark stands before it."""
    every = [call, *also]
    head = [f"# {remark}"] if remark else []
    frame = f"frame = {call.variable}.frame()"
    own = calls_code([call])
    more = [line for part in _parts(every)[len(call.parts) :] for line in part.lines()]
    return "\n".join([*head, "import workbench as wb", "", *given_code(every), *own, frame, *more, *figures])


def given_code(calls: Iterable[Call]) -> list[str]:
    """The lines that make what calls were given, or say what it is; each once."""
    given: list[Given] = []
    for part in _parts(calls):
        for one in _walked([*part.positional, *part.keywords.values()]):
            one = one.call if isinstance(one, Part) else one
            given += [one] if isinstance(one, Given) and one not in given else []
    return [one.code() for one in given]


def calls_code(calls: Iterable[Call]) -> list[str]:
    """The lines that make calls, after those that they need; each once."""
    return [line for part in _parts(calls) for line in part.lines()]


def _parts(calls: Iterable[Call]) -> list[Call]:
    found: list[Call] = []
    for call in calls:
        found += [part for part in call.parts if part not in found]
    return found


def _is_given(argument: Any) -> bool:
    """Whether it is taken of what was given, and not of what a call returns."""
    return isinstance(argument, Part) and isinstance(argument.call, Given)


def is_source(argument: Any, source: Any) -> bool:
    """Whether an argument is a model: that path, or that very object."""
    return argument is source or (isinstance(argument, str) and argument == source)


def named(value: Any) -> str:
    """How an argument is written that needs no remark."""
    return _told(value, "")[0]


def _walked(values: Iterable[Any]) -> Iterator[Any]:
    """The arguments, and those inside lists and dicts of them."""
    for value in values:
        inside = value.values() if isinstance(value, dict) else value
        yield from _walked(inside) if isinstance(value, list | tuple | dict) else [value]


def _same(one: Any, other: Any) -> bool:
    """Whether arguments are equal; objects, such as tensors, are where they are one."""
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one is other or (list(one) == list(other) and all(_same(one[name], other[name]) for name in one))
    return one is other or (isinstance(one, PLAIN) and isinstance(other, PLAIN) and one == other)


def _found(made: Made, call: Call) -> Any:
    """What a call returned; MISSING if it was not made."""
    return next((value for known, value in made if known == call), MISSING)


def _value(argument: Any, made: Made) -> Any:
    """What an argument stands for."""
    if isinstance(argument, list | tuple):
        return [_value(one, made) for one in argument]
    if isinstance(argument, dict):
        return {name: _value(one, made) for name, one in argument.items()}
    if isinstance(argument, Call):
        if (value := _found(made, argument)) is MISSING:
            raise LookupError(f"{argument.variable} was not made before the call that takes it.")
        return value
    if isinstance(argument, Part):
        return argument.take(_value(argument.call, made))
    return argument.value if isinstance(argument, Given) else argument


def _told(value: Any, name: str) -> tuple[str, list[str]]:
    """How an argument is written, and what must be said of it; an object that is not at hand is called `name`."""
    if isinstance(value, Call | Given):
        return value.variable, []
    if isinstance(value, Part):
        return f"{value.call.variable}{value.path}", []
    plain = value.values() if isinstance(value, dict) else [value]
    if all(one is None or isinstance(one, str | int | float) for one in plain):
        return pprint.pformat(value, width=WIDEST), []
    if isinstance(value, dict) and all(isinstance(one, Call | Given | list) for one in plain):
        told = {label: _told(one, name) for label, one in value.items()}
        parts = [f"{label!r}: {text}" for label, (text, _) in told.items()]
        return "{" + ", ".join(parts) + "}", [line for _, remark in told.values() for line in remark]
    if isinstance(value, list | tuple) and not all(isinstance(one, str | int | float) for one in value):
        parts = [_told(one, f"{name}_{place}") for place, one in enumerate(value)]
        return f"[{', '.join(text for text, _ in parts)}]", [line for _, remark in parts for line in remark]
    if isinstance(value, list | tuple):
        return pprint.pformat(value, width=WIDEST), []
    if found := variable_of(value):
        return found, []
    return name, [f"# {name}: the {type(value).__name__} that the explorer was given"]


def variable_of(value: Any) -> str | None:
    """The name under which the notebook knows an object."""
    return next((name for name, known in notebook().items() if known is value and not name.startswith("_")), None)


def notebook() -> dict[str, Any]:
    """What the notebook's cells have assigned, by variable; nothing outside of one."""
    from IPython import get_ipython

    shell = get_ipython()
    return dict(shell.user_ns) if shell else {}

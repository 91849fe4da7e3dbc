"""The run-time type checks of the tests: beartype, and jaxtyping where shapes are annotated, on functions and methods.

jaxtyping's own import hook makes every call of every function bind its arguments and look for shapes, which takes a
fifth of the tests' time; here only functions that have shapes do. What is not checked: a type in quotes that is not
known when its function is made, as where only type checkers import it (the other types of the function are checked),
and functions inside functions, which would be decorated at every call of the outer one; none of these has shapes.
"""

import ast
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any, ForwardRef, Literal, get_args, get_origin

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

PACKAGE = "workbench"

plain = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 says
shaped = jaxtyped(typechecker=plain)


def function(made: Any) -> Any:
    """A function that checks what it is given and what it returns."""
    told = made.__annotations__
    made.__annotations__ = {name: _known(hint, made.__globals__) for name, hint in told.items()}
    checked = (shaped if _has_shapes(made) else plain)(made)
    made.__annotations__ = checked.__annotations__ = told
    return checked


def dataclass(made: Any) -> Any:
    """A dataclass whose constructor checks what it is given."""
    if _has_shapes(made.__init__):
        return shaped(made)
    made.__init__ = function(made.__init__)
    return made


def _known(hint: Any, names: dict[str, Any]) -> Any:
    """What a hint stands for; Any, if something in quotes is not known when its function is made."""
    if isinstance(hint, str):
        try:
            hint = eval(hint, names)
        except NameError:
            return Any
    return Any if _holds(hint, _is_quoted) else hint


def _has_shapes(made: Any) -> bool:
    return any(_holds(hint, _is_shape) for hint in made.__annotations__.values())


def _holds(hint: Any, wanted: Any) -> bool:
    """Whether a hint, or one inside it, is of a kind; words of a Literal are none."""
    inside = hint if isinstance(hint, list) else () if get_origin(hint) is Literal else get_args(hint)
    return wanted(hint) or any(_holds(one, wanted) for one in inside)


def _is_shape(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _is_quoted(hint: Any) -> bool:
    return isinstance(hint, str | ForwardRef)


class Checks(ast.NodeTransformer):
    """Puts checks on the functions of a module, its methods and its dataclasses."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:  # noqa: N802, D102
        node.decorator_list.append(_decorator("function", node))  # the innermost
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:  # noqa: N802, D102
        self.generic_visit(node)
        if any("dataclass" in ast.dump(one) for one in node.decorator_list):
            node.decorator_list.insert(0, _decorator("dataclass", node))  # the outermost
        return node


def _decorator(name: str, node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.parse(f"__import__('typecheck').{name}", mode="eval").body, node)


class Loader(SourceFileLoader):
    """Compiles a module with the checks, anew every time: the cache is for the module without them."""

    def path_stats(self, path: str) -> Any:
        """Nothing is cached of a file without a time."""
        raise OSError

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:
        """The module's code, checks and all."""
        tree = Checks().visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True, optimize=_optimize)


class Finder(MetaPathFinder):
    """Finds the package's modules, to be loaded with checks."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As the usual finder, with another loader."""
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Checks what is imported from now on."""
    assert PACKAGE not in sys.modules, "imported before its checks"
    sys.meta_path.insert(0, Finder())

"""The run-time type checks of the tests: beartype on every function, and jaxtyping where shapes are annotated.

jaxtyping's own import hook makes every call of every function bind its arguments and look for shapes, which takes a
fifth of the tests' time; here only functions that have shapes do. A function inside another one is left alone, as it
would be decorated at every call of that.
"""

import ast
import sys
from collections.abc import Iterable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

ARRAYS = {"Bool", "Float", "Float64", "Int", "UInt8", "Floats"}  # what annotations of shapes begin with
PACKAGE = "workbench"

plain = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as PEP 484 says
shaped = jaxtyped(typechecker=plain)


def fields(made: Any) -> Any:
    """A dataclass whose constructor checks what it is given."""
    made.__init__ = plain(made.__init__)
    return made


class Checks(ast.NodeTransformer):
    """Puts checks on the functions of a module, its methods and its dataclasses."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:  # noqa: N802, D102
        found = [one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)] + [node.returns]
        told = [one for one in found if one is not None]
        if not any(map(_quoted, told)):
            node.decorator_list.append(_decorator("shaped" if _has_arrays(told) else "plain", node))  # the innermost
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:  # noqa: N802, D102
        self.generic_visit(node)
        if any("dataclass" in ast.dump(one) for one in node.decorator_list):
            told = [one.annotation for one in node.body if isinstance(one, ast.AnnAssign)]
            node.decorator_list.insert(
                0, _decorator("shaped" if _has_arrays(told) else "fields", node)
            )  # the outermost
        return node


def _has_arrays(annotations: Iterable[ast.expr]) -> bool:
    return any(isinstance(one, ast.Name) and one.id in ARRAYS for root in annotations for one in ast.walk(root))


def _quoted(annotation: ast.AST) -> bool:
    """Whether a type is in quotes: it may be known to type checkers only."""
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") in ARRAYS | {"Literal"}:
        return False
    if isinstance(annotation, ast.Constant):
        return isinstance(annotation.value, str)
    return any(map(_quoted, ast.iter_child_nodes(annotation)))


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

"""The checks of the tests check: shapes, types, methods and dataclasses of a module that is loaded with them."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import typecheck
import workbench as wb

SOURCE = """
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from nowhere import Gone

Square = Float[Tensor, "n n"]

def traced(matrices: Sequence[Square], power: Float[Tensor, "n"]) -> "Gone":
    return sum(matrices).diagonal() @ power

def told(value: "int", gone: "Gone") -> list["Gone"]:
    return [value]

def product(a: Float[Tensor, "m n"], b: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
    return a @ b if a.shape[0] != 4 else a

def half(value: float) -> float:
    return value / 2

@dataclass(frozen=True)
class Pair:
    one: int

    def plus(self, other: int) -> int:
        return self.one + other
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("checked") / "checked.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_loader("checked", typecheck.Loader("checked", str(path)))
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert not list(path.parent.rglob("*.pyc")), "an ordinary import would run it"
    return made


def test_shapes_are_those_of_all_arguments(module: ModuleType) -> None:
    assert module.product(torch.ones(2, 3), torch.ones(3, 5)).shape == (2, 5)
    for a, b in (((2, 3), (2, 5)), ((2,), (2, 5)), ((4, 3), (3, 5))):  # the last is returned in another shape
        with pytest.raises(Exception, match="m n|m k|n k"):
            module.product(torch.ones(a), torch.ones(b))


def test_types_are_checked(module: ModuleType) -> None:
    assert module.half(3) == 1.5 and module.Pair(1).plus(2) == 3
    for wrong in (lambda: module.half("3"), lambda: module.Pair("1"), lambda: module.Pair(1).plus(2.5)):
        with pytest.raises(Exception, match="violates type hint"):
            wrong()


def test_shapes_are_found_behind_other_names(module: ModuleType) -> None:
    assert module.traced([torch.eye(3)], torch.ones(3)) == 3
    for matrix, power in ((torch.ones(3, 2), torch.ones(3)), (torch.eye(3), torch.ones(2))):
        with pytest.raises(Exception, match="violates type hint|n n|'n'"):
            module.traced([matrix], power)


def test_a_type_in_quotes_leaves_the_others_checked(module: ModuleType) -> None:
    assert module.told(1, "anything") == [1]
    assert module.told.__annotations__["gone"] == "Gone", "as it was written"
    for wrong in (lambda: module.told("1", 2), lambda: module.traced(torch.eye(3), torch.ones(3))):
        with pytest.raises(Exception, match="violates type hint|traced"):
            wrong()


def test_no_function_within_another_has_shapes() -> None:
    def names(node: ast.AST) -> set[str]:
        return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}

    for path in (Path(wb.__file__).parent).rglob("*.py"):
        tree = ast.parse(path.read_text())
        imported = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
        shapes = {alias.name for one in imported if one.module == "jaxtyping" for alias in one.names}
        shapes |= {
            names(one.target).pop() for one in tree.body if isinstance(one, ast.AnnAssign) and shapes & names(one)
        }
        for outer in (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)):
            for inner in (one for one in ast.walk(outer) if isinstance(one, ast.FunctionDef) and one is not outer):
                hints = [one.annotation for one in ast.walk(inner.args) if isinstance(one, ast.arg)] + [inner.returns]
                assert not any(shapes & names(hint) for hint in hints if hint), f"{path}: {inner.name}"


def test_the_workbench_is_loaded_with_them() -> None:
    with pytest.raises(Exception, match="violates type hint"):
        wb.figure({}, 3)

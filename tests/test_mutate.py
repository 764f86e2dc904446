"""The errors that tests/mutate.py puts into code, by hand."""

import ast
import importlib.util
from pathlib import Path

import pytest

TEXT = '''
LIMIT = 1 + 2


def f(a, b=1):
    """Not this: 1 + 2."""
    if a < LIMIT and not b:
        raise ValueError(f"{a + b}")
    logger.info(a + b)
    a.x = g(a.detach(), k=2)
    with torch.no_grad():
        return [-a for _ in zip(a, b, strict=True)]
'''


@pytest.fixture(scope="module")
def errors_below():
    spec = importlib.util.spec_from_file_location("mutate", Path(__file__).with_name("mutate.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.errors_below


def test_errors_are_in_functions_and_not_in_messages(errors_below):
    first = "if a < LIMIT and (not b): ..."
    assert [error.change for error in errors_below(ast.parse(TEXT))] == [
        f"{first} -> if not (a < LIMIT and (not b)): ...",
        "a < LIMIT and (not b) -> a < LIMIT or not b",
        "a < LIMIT -> a <= LIMIT",
        "not b -> b",
        "a.x = g(a.detach(), k=2) -> pass",
        "g(a.detach(), k=2) -> g(a.detach())",
        "a.detach() -> a",
        "2 -> 3",
        "with torch.no_grad(): ... -> if True: ...",
        "return [-a for _ in zip(a, b, strict=True)] -> return None",
        "-a -> a",
    ]


def test_each_changes_one_place(errors_below):
    lines = ast.unparse(ast.parse(TEXT)).splitlines()
    for number in range(11):
        tree = ast.parse(TEXT)
        list(errors_below(tree))[number].put_in()
        wrong = ast.unparse(tree).splitlines()
        assert sum(a != b for a, b in zip(lines, wrong, strict=True)) == 1

#!/usr/bin/env python
"""Do the tests notice when the core is wrong? A sample of its lines gets an error each, and the tests run on each.

    python -m pytest tests --cov gan_plugin --cov-context test --cov-report=   # which test runs which line: .coverage
    python tests/mutate.py [--sample 150] [--seed 0] [FILE ...]

Of the lines of modeling, engine, layers and evaluation (or of FILEs) that tests run, a sample is drawn. A line gets one
error, such as an operator for its neighbour, a condition reversed, a statement left out. The tests that run the line
follow, those that run the fewest lines first, until one fails. Where an error survives, either the program is as good
with it, or a test is missing. The files themselves stay as they are. Run it with OMP_NUM_THREADS=1.
"""

import argparse
import ast
import importlib
import os
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("modeling", "engine", "layers", "evaluation")
# Imported once, and none of ours, since an error is put in as its file is imported: each time in a fork. PyTorch can be
# forked before it has differentiated anything.
PRELOADED = ("torch", "torchvision", "detectron2.engine", "detectron2.model_zoo", "detectron2.evaluation", "hypothesis")
# of a processor: longer than the tests of any line, so that what takes it will never end
SECONDS = 300

_NEIGHBOURS: list[tuple[type[ast.AST], type[ast.AST]]] = [
    *[(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)],
    *[(ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.And, ast.Or), (ast.BitAnd, ast.BitOr), (ast.Break, ast.Continue)],
]
_OTHER: dict[type[ast.AST], Any] = dict(_NEIGHBOURS) | {b: a for a, b in _NEIGHBOURS}
_OTHER |= dict.fromkeys((ast.FloorDiv, ast.Mod, ast.Pow), ast.Mult)
# calls without arguments whose object does in their place
_LEFT_OUT = ("detach", "clone", "copy", "float", "abs", "square", "sqrt", "exp", "log", "sigmoid", "sum", "mean")
# messages, types, and what runs as a function is made
_LEFT_ALONE = (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)
_FIELDS_LEFT_ALONE = ("annotation", "returns", "decorator_list")


class Error(NamedTuple):
    """What may be wrong in a file's tree, which `put_in` changes."""

    line: int
    change: str
    put_in: Callable[[], None]


def errors_below(node: ast.AST, in_function: bool = False) -> Iterator[Error]:
    """All that may be wrong in the functions below `node`, in the same order at every call."""
    for field, value in ast.iter_fields(node):
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or field in _FIELDS_LEFT_ALONE or _needs_no_test(child):
                continue
            for wrong in _instead_of(child) if in_function else ():

                def put_in(field: str = field, index: int | None = index, wrong: ast.AST = wrong) -> None:
                    if index is None:
                        setattr(node, field, wrong)
                    else:
                        getattr(node, field)[index] = wrong

                ast.copy_location(wrong, child)
                yield Error(child.lineno, f"{_first_line(child)} -> {_first_line(wrong)}", put_in)
            yield from errors_below(child, in_function or isinstance(child, ast.FunctionDef))


def _needs_no_test(node: ast.AST) -> bool:
    logs = isinstance(node, ast.Expr) and any(word in ast.unparse(node) for word in ("logger", "logging", "warn("))
    return logs or isinstance(node, _LEFT_ALONE) or isinstance(node, ast.keyword) and node.arg == "strict"


def _first_line(node: ast.AST) -> str:
    first, *more = ast.unparse(node).splitlines()
    return first + (" ..." if more else "")


def _instead_of(node: ast.AST) -> Iterator[ast.AST]:
    """What may wrongly stand in place of a node."""
    match node:
        case ast.Compare(left, [op], right) if type(op) in _OTHER:
            yield ast.Compare(left, [_OTHER[type(op)]()], right)
        case ast.BinOp(left, op, right) if type(op) in _OTHER:
            yield ast.BinOp(left, _OTHER[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(_OTHER[type(op)](), values)
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If(test, body, orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Break() | ast.Continue():
            yield _OTHER[type(node)]()
        case ast.Expr(ast.Call()) | ast.Assign([ast.Attribute() | ast.Subscript()]) | ast.AugAssign():
            yield ast.Pass()
        case ast.With([ast.withitem(_, None)], body):
            yield ast.If(ast.Constant(True), body, [])
        case ast.Call(ast.Attribute(value, name), [], []) if name in _LEFT_OUT:
            yield value
        case ast.Call(func, args, keywords):
            for one in keywords:
                if one.arg != "strict":
                    yield ast.Call(func, args, [other for other in keywords if other is not one])


class Place(NamedTuple):
    """A line, with the numbers of its errors, and the tests that run it, those that run the fewest lines first."""

    file: Path
    line: int
    numbers: list[int]
    tests: list[str]


def places_of(files: list[Path]) -> list[Place]:
    """The lines that tests run, as .coverage says, and that can be wrong."""
    from coverage import CoverageData

    data = CoverageData()
    data.read()
    reached: Counter[str] = Counter()
    for file in files:
        for tests in data.contexts_by_lineno(str(file)).values():
            reached.update(tests)
    places = []
    for file in files:
        tests_of = data.contexts_by_lineno(str(file))
        numbers_of: dict[int, list[int]] = {}
        for number, error in enumerate(errors_below(ast.parse(file.read_text("utf-8")))):
            numbers_of.setdefault(error.line, []).append(number)
        for line, numbers in sorted(numbers_of.items()):
            # such as "tests/test_a.py::test_b|run"; without a name as the module is imported
            contexts = sorted(filter(None, tests_of.get(line, [])), key=lambda context: (reached[context], context))
            parts = (context.rpartition("|") for context in contexts)
            # what a fixture runs may matter to any test of the file
            tests = dict.fromkeys(test if phase == "run" else test.split("::")[0] for test, _, phase in parts)
            if tests:
                places.append(Place(file, line, numbers, list(tests)))
    return places


class Wrong(MetaPathFinder, SourceFileLoader):
    """Imports the module of one file with its `number`-th error in it."""

    def __init__(self, file: Path, number: int) -> None:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        super().__init__(name, str(file))
        self._tree = ast.parse(file.read_text("utf-8"))
        error = list(errors_below(self._tree))[number]
        self.change = error.change
        error.put_in()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> Any:
        return compile(ast.fix_missing_locations(self._tree), self.path, "exec")


def one_fails(tests: list[str], wrong: Wrong | None) -> bool:
    """Whether one of the tests fails, run in a fork with an error or without."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            if wrong:
                sys.meta_path.insert(0, wrong)
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-cov", *tests])
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150, metavar="N", help="lines, each with one error")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    args = parser.parse_args()
    os.chdir(ROOT)
    core = [file for name in FOLDERS for file in sorted((ROOT / "gan_plugin" / name).rglob("*.py"))]
    places = places_of([path.resolve() for path in args.files] or core)
    draw = random.Random(args.seed)
    chosen = draw.sample(places, min(args.sample, len(places)))
    for name in PRELOADED:
        importlib.import_module(name)
    if one_fails(list(dict.fromkeys(place.tests[0] for place in chosen)), None):
        sys.exit("Some test fails without any error, or is not there any more: measure .coverage again.")
    survivors = 0
    for place in chosen:
        wrong = Wrong(place.file, draw.choice(place.numbers))
        survives = not one_fails(place.tests, wrong)
        survivors += survives
        outcome = "SURVIVES" if survives else "noticed "
        where = f"{place.file.relative_to(ROOT)}:{place.line}"
        print(f"{outcome} {where}: {wrong.change}  ({len(place.tests)} tests)", flush=True)
    print(f"{len(chosen)} errors: {len(chosen) - survivors} noticed, {survivors} not.")


if __name__ == "__main__":
    main()

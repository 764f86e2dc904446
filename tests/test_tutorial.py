"""docs/tutorial.ipynb, executed on less data."""

import ast
import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs/tutorial.ipynb"


def executed(notebook, names):
    """Run the code cells of a notebook one after the other in `names`; (output, value of the last line) of each."""
    results = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        shown, value = io.StringIO(), None
        with redirect_stdout(shown):
            exec(compile(tree, "the tutorial", "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "the tutorial", "eval"), names)
        results.append((shown.getvalue(), value))
    return results


def test_the_tutorial_runs(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    for name, value in (("OUT", tmp_path / "out"), ("ITERATIONS", 2), ("PICTURES", 5)):
        monkeypatch.setenv(f"TUTORIAL_{name}", str(value))
    monkeypatch.chdir(tmp_path)
    results = executed(json.loads(NOTEBOOK.read_text(encoding="utf-8")), {})
    text = "".join(shown for shown, _ in results)
    assert "5 pictures, 0 of them without an object" in text
    assert "no kinds of problems" in text
    assert "2 pictures, " in text
    assert results[-1][0].rstrip().endswith("fits Detectron2's model")
    sheets = [value for _, value in results if hasattr(value, "size")]
    assert [sheet.size[0] for sheet in sheets] == [4 * 160, 1218]


def test_it_is_small_and_shows_what_it_has_done():
    assert NOTEBOOK.stat().st_size < 400_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 2
    text = "".join(line for output in outputs for line in output.get("text", ()))
    assert "boundary/AP" in text and "accuracy of the discriminator" in text
    # the paths are those below the folder that it was executed in
    assert not re.search(r"(^|\s)(/|[A-Z]:\\)", text)

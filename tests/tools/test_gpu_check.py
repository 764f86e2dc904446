"""The conduct of the check: its parts are stood in for, and `make gpu` itself runs them on a machine without a GPU."""

import json
import sys
import time

import gpu_check
import pytest

import benchmarks.gpu

POOLED = {"seconds": 2.0, "ratio_min": 1, "ratio_median": 1.5, "ratio_max": 2, "forward_bandwidth_share": 0.5}
REPORTS = {
    "tests": {"tests": 9, "skipped": 2, "failures": 0, "errors": 0},
    "pooling": {"table": {"PrRoI": POOLED}},
}


@pytest.fixture
def parts(monkeypatch, tmp_path):
    """Stands in for the parts: tests and pooling pass, steps fails, training never ends and neither does its child."""
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); time.sleep(99)"
    write = f"import time, pathlib; time.sleep(4); pathlib.Path(r'{tmp_path}/orphan').touch()"
    scripts = {"steps": "raise SystemExit('it went\\nout of memory')", "training": child.format(write)}

    def command_of(name, on_cpu, weights, result):
        assert on_cpu
        passes = f"import pathlib; pathlib.Path({str(result)!r}).write_text({json.dumps(REPORTS.get(name))!r})"
        return [sys.executable, "-c", scripts.get(name, passes)]

    facts = {"gpu": "", "torch": "2.11.0", "numpy": "2.5", "python": "3.12.1"}
    monkeypatch.setattr(gpu_check, "_FACTS", f"print('{json.dumps(facts)}')")
    monkeypatch.setattr(gpu_check, "command_of", command_of)


def test_a_part_that_fails_or_never_ends_takes_no_other_with_it(parts, tmp_path, capsys):
    out, begun = tmp_path / "new" / "out", time.monotonic()
    assert gpu_check.main(["--out", str(out), "--minutes", "0.1"]) == 1
    report = json.loads((out / "gpu_check.json").read_text())["parts"]
    assert report["steps"] == {"error": "out of memory (see steps.log)"}
    assert report["training"]["error"].startswith("stopped after its")
    assert {key: report["tests"][key] for key in REPORTS["tests"]} == REPORTS["tests"]
    page = (out / "gpu_check.md").read_text()
    assert "# Check on CPU; PyTorch 2.11.0" in page and "| tests | 7 passed, 2 skipped |" in page
    assert "| steps | FAILED: out of memory" in page and "at 50% of the copying bandwidth" in page
    assert "| PrRoI | 2 | 1 | 1.5 | 2 |" in page
    assert "in miniature on the CPU, since PyTorch sees no GPU" in capsys.readouterr().out
    time.sleep(max(0.0, begun + 7 - time.monotonic()))
    assert not (tmp_path / "orphan").exists()


def test_failed_tests_are_named(monkeypatch, tmp_path):
    file = tmp_path / "test_two.py"
    monkeypatch.setattr(benchmarks.gpu, "TEST_FILES", (str(file),))
    monkeypatch.setattr(benchmarks.gpu, "ROOT", tmp_path)
    file.write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    with pytest.raises(RuntimeError, match="1 of 2 tests failed: test_bad"):
        benchmarks.gpu.run_tests(True)


def test_only_what_is_missing_is_installed_from_the_wheels(monkeypatch, tmp_path, capsys):
    for name in ("pytest-9.0-py3-none-any.whl", "not_there_at_all-1.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    commands = []
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda command, check: commands.append(command))
    gpu_check.install(tmp_path, tmp_path / "site")
    wheels = [path for path in commands[0] if path.endswith(".whl")]
    assert wheels == [f"{tmp_path}/not_there_at_all-1.0-py3-none-any.whl"]
    assert "--no-index" in commands[0] and "not_there_at_all" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, said", [([], "either --out"), (["--out", "a", "--wheels", "b"], "either --out")])
def test_wrong_arguments_are_a_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        gpu_check.main(arguments)
    assert end.value.code == 2 and said in capsys.readouterr().err

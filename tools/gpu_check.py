#!/usr/bin/env python
"""Everything that only a GPU can show, in a few minutes: tests, training in mixed precision, and speed as ratios.

    python tools/gpu_check.py --out DIR [--minutes 8] [--cpu] [--install WHEELS] [--weights FILE] [--parts NAME ...]
    python tools/gpu_check.py --wheels WHEELS [PACKAGE ...]

Its parts: tests (Triton kernels, mixed precision with both players, compilation, second derivatives, channels-last),
training (60 iterations of configs/gan_mask_rcnn_cityscapes.yaml on generated pictures), steps (all variants of R50-FPN
at 1024x2048, batch 8, mixed precision) and pooling (PrRoI against RoIAlign). Each runs in a process of its own with its
share of the time; one that fails takes none of the others with it. DIR gets gpu_check.json, gpu_check.md and the log
of each part. Without a GPU, or with --cpu, all parts run in miniature on the CPU.

A machine without a network needs a folder of wheels: --wheels makes it where there is one (for Python 3.12 on Linux,
x86-64, with PyTorch in place), --install uses it there, for what that Python lacks and beside its own packages.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _command_line import Parser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import PARTS, run_part  # noqa: E402

# What a Python with PyTorch, NumPy, SciPy, Matplotlib and TensorBoard usually lacks; versions are in requirements.txt.
CARRIED = (
    *("fvcore", "iopath", "antlr4-python3-runtime", "pycocotools", "cityscapesScripts", "shapely", "omegaconf"),
    *("hydra-core", "yacs", "termcolor", "pyquaternion", "appdirs", "faster-coco-eval", "portalocker", "tabulate"),
    *("cloudpickle", "safetensors", "coloredlogs", "humanfriendly", "setuptools", "pytest", "iniconfig", "pluggy"),
    *("hypothesis", "sortedcontainers", "packaging", "pygments", "tqdm", "PyYAML"),
)
_TARGET = [*("--python-version", "3.12", "--implementation", "cp", "--abi", "cp312", "--abi", "abi3", "--abi", "none")]
for _glibc in ("2014", "_2_17", "_2_24", "_2_27", "_2_28", "_2_34"):
    _TARGET += ["--platform", f"manylinux{_glibc}_x86_64"]
_FACTS = """
import json, platform, numpy, torch
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
print(json.dumps({"gpu": gpu, "python": platform.python_version(), "torch": torch.__version__,
                  "numpy": numpy.__version__, "threads": torch.get_num_threads()}))
"""
_HEADERS = ("variant", "median s", "ratio min", "ratio median", "ratio max")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes")
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="for everything together")
    parser.add_argument("--cpu", action="store_true", help="in miniature on the CPU")
    parser.add_argument("--weights", default="", metavar="FILE", help="for the training; random ones without")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME")
    parser.add_argument("--install", type=Path, metavar="WHEELS", help="a folder that --wheels has filled")
    parser.add_argument("--wheels", type=Path, metavar="WHEELS", help="fill this folder, and do nothing else")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="what to carry besides, such as scipy==1.17.1")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if (args.out is None) == (args.wheels is None) and not args.part:
        parser.error("name either --out, to run the check, or --wheels, to prepare it")
    if not args.minutes > 0:
        parser.error(f"argument --minutes: {args.minutes} is not above 0")
    return args


def collect_wheels(folder: Path, packages: list[str]) -> None:
    """Fill `folder` with wheels of what the check needs, Detectron2 among them.

    Raises:
        InstallError: pip cannot get one of them.
    """
    from _detectron2_wheel import LABGYM, InstallError, build_wheel, extract
    from install_detectron2 import download, last_line, run_python

    folder.mkdir(parents=True, exist_ok=True)
    pins = dict(re.findall(r"^([\w.-]+)(==\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    for wanted in [*(name + pins.get(name, "") for name in CARRIED), *packages]:
        binary = ["download", "--only-binary=:all:", *_TARGET, wanted, "-d", str(folder.absolute())]
        source = ["wheel", wanted, "-w", str(folder.absolute())]
        for command in (binary, source):
            done = run_python("-m", "pip", *command, "-q", "--no-deps", "--disable-pip-version-check")
            if done.returncode == 0:
                break
        else:
            raise InstallError(f"pip cannot get {wanted} ({last_line(done.stderr)}): check the network and the name")
    with tempfile.TemporaryDirectory() as elsewhere:
        build_wheel(extract(download(LABGYM, Path(elsewhere)), LABGYM), folder, LABGYM)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    print(f"{len(list(folder.glob('*.whl')))} wheels, {size:.0f} MiB, are in {folder}.")


def install(wheels: Path, site: Path) -> None:
    """Install into the folder `site` those of the wheels that this Python lacks.

    Raises:
        CalledProcessError: pip failed.
    """
    missing = [path for path in sorted(wheels.glob("*.whl")) if not _present(path.name.split("-")[0])]
    if missing:
        options = ["-q", "--no-deps", "--no-index", "--target", str(site), "--disable-pip-version-check"]
        options.append("--root-user-action=ignore")
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, missing)], check=True)
    print(f"Installed from {wheels}: {', '.join(path.name.split('-')[0] for path in missing) or 'nothing'}.")


def _present(name: str) -> bool:
    # newer ones lack what detectron2.model_zoo imports
    if name == "setuptools":
        return find_spec("pkg_resources") is not None
    try:
        return distribution(name) is not None
    except PackageNotFoundError:
        return False


def check(args: argparse.Namespace, environment: Mapping[str, str], start: float) -> dict[str, Any]:
    """Run all parts that are wanted, each within its share of the time that is left since `start`; the report."""
    parts: dict[str, Any] = {}
    facts = subprocess.run(
        [sys.executable, "-c", _FACTS], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    report = {**json.loads(facts.stdout), "parts": parts}
    on_cpu = args.cpu or not report["gpu"]
    report["device"] = "CPU" if on_cpu else report["gpu"]
    if on_cpu:
        why = "as --cpu says" if args.cpu else "since PyTorch sees no GPU"
        print(f"All parts run in miniature on the CPU, {why}; their times say nothing about a GPU.", flush=True)
        environment = {**environment, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for number, name in enumerate(args.parts):
        left = args.minutes * 60 - (time.monotonic() - start)
        share = PARTS[name][1] / sum(PARTS[other][1] for other in args.parts[number:])
        seconds = max(1.0, left * share)
        print(f"[{time.monotonic() - start:4.0f} s] {name}: at most {seconds:.0f} s", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            command = command_of(name, on_cpu, args.weights, result)
            parts[name] = run_apart(command, seconds, args.out / f"{name}.log", result, environment)
        print(f"[{time.monotonic() - start:4.0f} s] {name}: {parts[name].get('error', 'passed')}", flush=True)
        write(report, args.out)
    return report


def command_of(name: str, on_cpu: bool, weights: str, result: Path) -> list[str]:
    """The command that runs one part in its own process and leaves its report in `result`."""
    command = [sys.executable, __file__, "--part", name, "--out", str(result), "--weights", weights]
    return [*command, "--cpu"] if on_cpu else command


def run_apart(
    command: list[str], seconds: float, log: Path, result: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run a part; its report with the seconds that it took, or {"error"} with the last line that it said.

    Args:
        command: see `command_of`.
        seconds: after which it is stopped, with all processes that it has started.
        log: gets what it says.
        result: where it leaves its report.
        environment: of the process.
    """
    begun = time.monotonic()
    with log.open("w") as output:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(seconds)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return {"error": f"stopped after its {seconds:.0f} s; see {log.name}"}
    if code == 0:
        return {**json.loads(result.read_text()), "seconds": round(time.monotonic() - begun, 1)}
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    return {"error": f"{lines[-1] if lines else f'ended with code {code}'} (see {log.name})"}


def as_table(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    title = f"{report['device']}; PyTorch {report['torch']}, NumPy {report['numpy']}, Python {report['python']}"
    lines = [f"# Check on {title}", "", "| part | result | s |", "|---|---|---|"]
    for name, part in report["parts"].items():
        lines.append(f"| {name} | {_outcome(name, part)} | {part.get('seconds', '')} |")
    for name, part in report["parts"].items():
        if "table" not in part:
            continue
        size = f", {part['size']}, batch {part['batch']}, mixed precision" if "size" in part else ""
        lines += ["", f"## {name}{size}", "", f"| {' | '.join(_HEADERS)} |", "|---|---|---|---|---|"]
        for variant, row in part["table"].items():
            numbers = [f"{row[key]:.4g}" for key in ("seconds", "ratio_min", "ratio_median", "ratio_max")]
            lines.append(f"| {' | '.join([variant, *numbers])} |")
    return "\n".join([*lines, ""])


def _outcome(name: str, part: Mapping[str, Any]) -> str:
    if "error" in part:
        return f"FAILED: {part['error'].replace('|', '/')}"
    if name == "tests":
        return f"{part['tests'] - part['skipped']} passed, {part['skipped']} skipped"
    if name == "training":
        total = sum(value for key, value in part["losses"].items() if "total" not in key)
        return f"{part['iterations']} iterations, {part['weights']} weights, all losses finite, sum {total:.3g}"
    shares = [row["forward_bandwidth_share"] for row in part["table"].values() if "forward_bandwidth_share" in row]
    return f"forward pass at {shares[0]:.0%} of the copying bandwidth" if shares else "measured"


def write(report: Mapping[str, Any], out: Path) -> None:
    """gpu_check.json and gpu_check.md."""
    (out / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "gpu_check.md").write_text(as_table(report))


def main(arguments: list[str] | None = None) -> int:
    start, args = time.monotonic(), parse(arguments)
    if args.part:
        run_part(args.part, args.cpu, args.weights, args.out)
        return 0
    if args.wheels:
        from _detectron2_wheel import InstallError

        try:
            collect_wheels(args.wheels, args.packages)
        except InstallError as error:
            print(f"error: {error}.", file=sys.stderr)
            return 2
        return 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: --out {args.out} cannot be written: {error.strerror}; name another folder.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as site:
        if args.install:
            install(args.install, Path(site))
        places = [str(ROOT), *(str(ROOT / "projects" / name) for name in ("CarGAN", "COIGAN")), site]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])}
        report = check(args, environment, start)
    print(f"\n{as_table(report)}\nThe report is in {args.out}.")
    return int(any("error" in part for part in report["parts"].values()))


if __name__ == "__main__":
    sys.exit(main())

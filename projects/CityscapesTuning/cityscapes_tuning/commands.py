"""The command line of study.py, and the demo: all phases in miniature on a toy Cityscapes, from nothing, on a CPU."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from _command_line import Parser, positive

from .search import PHASES

_STUDY = Path(__file__).resolve().parents[1] / "configs/toy_study.yaml"
_PICTURES = {"train": 48, "val": 12}
_SIZE = (256, 128)
_SHOWN = 5


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(prog="study.py", description="Tune, train and judge a Mask R-CNN by one YAML file.")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="begin a study, or continue the same one")
    run.add_argument("study", type=Path, metavar="STUDY.yaml")
    run.add_argument("--output", type=Path, required=True, metavar="DIR")
    run.add_argument("--dry-run", action="store_true", help="print the plan and its estimated time, and run nothing")
    resume = commands.add_parser("resume", help="continue a study")
    work = commands.add_parser("work", help="be one more worker of a study")
    for command in (run, resume, work):
        command.add_argument("--phase", choices=PHASES, default="", help="stop after this phase")
    for command in (run, resume):
        command.add_argument("--workers", type=positive, default=1, metavar="N", help="trials at a time")
    resume.add_argument("--retry-failed", action="store_true", help="try the trials that failed again")
    status = commands.add_parser("status", help="print the table of trials")
    status.add_argument("--json", action="store_true", help="as JSON, without times")
    report = commands.add_parser("report", help="write report.html and its figures")
    figures = commands.add_parser("figures", help="write the figures alone")
    figures.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of them; a wrong name lists all")
    export = commands.add_parser("export", help="write config, weights, predictions and report of the best trial")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--trial", default="", metavar="PHASE/KEY", help="another trial than the best")
    for command in (resume, work, status, report, figures, export):
        command.add_argument("folder", type=Path, metavar="DIR")
    demo = commands.add_parser("demo", help="all phases in miniature on a toy data set")
    demo.add_argument("--out", type=Path, default=Path("output/demo-tuning"), metavar="DIR")
    demo.add_argument("--workers", type=positive, default=2, metavar="N")
    return top


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The values of a command line."""
    return parser().parse_args(arguments)


def work(args: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    return globals()[f"_{args.command}"](args) or 0


def main(arguments: list[str] | None = None) -> int:
    """Read a command line and do what it says; returns the exit code."""
    return work(parse(arguments))


def _run(args: argparse.Namespace) -> int:
    if args.dry_run:
        from .search.estimate import dry_run

        print(dry_run(args.study, args.output, args.workers))
        return 0
    from .search.workspace import set_up

    set_up(args.study, args.output)
    args.folder, args.retry_failed = args.output, False
    return _resume(args)


def _resume(args: argparse.Namespace) -> int:
    from gan_plugin.errors import USER_ERROR_EXIT_CODE

    from .search.status import describe, print_line
    from .search.worker import work_together
    from .search.workspace import notes_of, open_study, retry_failed

    context, table = open_study(args.folder)
    for note in notes_of(context.folder):
        print_line(f"note: {note}")
    for name in retry_failed(context, table) if args.retry_failed else ():
        print_line(f"{name}: again")
    findings = work_together(context, table, args.workers, args.phase)
    print(describe(context, table))
    failed = [row.name for row in table.all_rows().values() if row.status == "failed"]
    if failed:
        said = f"{len(failed)} trials failed, the first is {failed[0]}; see above"
        print(f"error: {said}. `study.py resume {args.folder} --retry-failed` tries them again.", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    if findings.finished and not args.phase:
        return _report(args)
    return 0


def _work(args: argparse.Namespace) -> int:
    from .search.status import print_line
    from .search.worker import Worker
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    Worker(context, table, only=args.phase, say=print_line).work()
    return 0


def _status(args: argparse.Namespace) -> int:
    from .search.status import describe, trial_table
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    print(json.dumps(trial_table(table), indent=1) if args.json else describe(context, table))
    return 0


def _report(args: argparse.Namespace) -> int:
    from .reporting.page import write_study_report
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    print(f"Report: {write_study_report(context, table)}")
    return 0


def _figures(args: argparse.Namespace) -> int:
    from .reporting.figures import write_figures
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    for file in write_figures(context, table, args.only):
        print(file)
    return 0


def _export(args: argparse.Namespace) -> int:
    from .reporting.page import export_trial
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    for file in export_trial(context, table, args.out, args.trial):
        print(file)
    return 0


def _demo(args: argparse.Namespace) -> int:
    """Write the toy data, run the whole study, print the best trials and the report's path; again, it continues."""
    started = time.monotonic()
    from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
    from gan_plugin.demos import shown_path
    from gan_plugin.errors import UserError

    from .reporting.page import best_trials, write_study_report
    from .search.worker import work_together
    from .search.workspace import set_up

    datasets = args.out / "datasets"
    write_toy_cityscapes(datasets, **_PICTURES, size=_SIZE)
    os.environ["DETECTRON2_DATASETS"] = str(datasets.resolve())
    context, table = set_up(_STUDY, args.out / "study")
    work_together(context, table, args.workers)
    failed = [row for row in table.all_rows().values() if row.status == "failed"]
    if failed:
        raise UserError(f"{len(failed)} trials of the demo failed; the first: {failed[0].attr('reason')}")
    report = write_study_report(context, table)
    print(best_trials(context, table, _SHOWN))
    seconds = time.monotonic() - started
    print(f"demo-tuning: {len(table.all_rows())} trials in {seconds:.0f} s, report {shown_path(report)}")
    return 0

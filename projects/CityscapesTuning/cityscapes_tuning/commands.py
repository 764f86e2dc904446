"""The command line of study.py."""

import argparse
import json
import sys
from pathlib import Path

from _command_line import Parser, positive

from .search import PHASES


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
    args.folder = args.output
    return _resume(args)


def _resume(args: argparse.Namespace) -> int:
    from gan_plugin.errors import USER_ERROR_EXIT_CODE

    from .search.status import describe
    from .search.together import work_together
    from .search.worker import print_line
    from .search.workspace import notes_of, open_study

    context, table = open_study(args.folder)
    for note in notes_of(context.folder):
        print_line(f"note: {note}")
    findings = work_together(context, table, args.workers, args.phase)
    print(describe(context, table))
    failed = [row.name for row in table.all_rows().values() if row.status == "failed"]
    if failed:
        print(f"error: {len(failed)} trials failed, the first is {failed[0]}; see above.", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    if findings.finished and not args.phase:
        return _report(args)
    return 0


def _work(args: argparse.Namespace) -> int:
    from .search.worker import Worker, print_line
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
    from .reporting.export import export_trial
    from .search.workspace import open_study

    context, table = open_study(args.folder)
    for file in export_trial(context, table, args.out, args.trial):
        print(file)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from .demo import run_demo

    return run_demo(args.out, args.workers)

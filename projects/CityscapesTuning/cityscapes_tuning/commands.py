"""The verbs of study.py, and the demo: all phases in miniature on a toy Cityscapes, from nothing, on a CPU."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from _command_line import positive
from _verbs import Verb, Verbs

from .search import PHASES

_STUDY = Path(__file__).resolve().parents[1] / "configs/toy_study.yaml"
_PICTURES = {"train": 48, "val": 12}
_SIZE = (256, 128)
_SHOWN = 5


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its estimated time, and run nothing")


def _of_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the --output of the study")


def _of_phase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--phase", choices=PHASES, default="", help="stop after this phase")


def _of_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="trials at a time")


def _resume_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retry-failed", action="store_true", help="try the trials that failed again")


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON, without times")


def _figures_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of them; a wrong name lists all")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--trial", default="", metavar="PHASE/KEY", help="another trial than the best")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("output/demo-tuning"), metavar="DIR")
    parser.add_argument("--workers", type=positive, default=2, metavar="N")


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


VERBS: Verbs = {
    "run": Verb("begin a study, or continue the same one", _run, [_run_arguments, _of_workers, _of_phase]),
    "resume": Verb("continue a study", _resume, [_of_folder, _resume_arguments, _of_workers, _of_phase]),
    "work": Verb("be one more worker of a study", _work, [_of_folder, _of_phase]),
    "status": Verb("print the table of trials", _status, [_of_folder, _status_arguments]),
    "report": Verb("write report.html and its figures", _report, [_of_folder]),
    "figures": Verb("write the figures alone", _figures, [_of_folder, _figures_arguments]),
    "export": Verb(
        "write config, weights, predictions and report of the best trial", _export, [_of_folder, _export_arguments]
    ),
    "demo": Verb("all phases in miniature on a toy data set", _demo, [_demo_arguments]),
}

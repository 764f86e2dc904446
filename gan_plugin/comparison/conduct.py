"""A comparison from its plan to its report."""

from pathlib import Path
from typing import Any

from .plan import Plan
from .report import write_comparison_report
from .results import collect, save_results
from .run import execute
from .story import Story
from .workspace import claimed, known_plan, save_plan


def conduct(asked: Plan, output: Path, tool: Path, *, jobs: int, story: Story | None = None) -> dict[str, Any]:
    """Run what is left of a comparison, and write results.json, results.csv and report.html of all.

    The same call on several machines that share `output` does it together.

    Args:
        asked: what to run; added to the plan that `output` already has.
        output: the comparison's folder.
        tool: path of train_net.py.
        jobs: runs at a time, 1 or more.
        story: the words of the report; None for those of tools/compare.py.

    Returns:
        See `collect`; "failures" says which runs failed.

    Raises:
        UserError: `output` is another comparison's, or cannot be written.
        Stopped: by SIGINT or SIGTERM.
    """
    with claimed(output):
        plan = known_plan(output, asked)
        save_plan(output, plan)
    failures = execute(plan, output, tool, jobs=jobs)
    with claimed(output):
        # another call may have asked for more in the meantime
        results = collect(known_plan(output, asked), output, failures)
        save_results(results, output)
        write_comparison_report(results, output, story)
    return results

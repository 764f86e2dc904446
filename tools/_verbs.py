"""Commands with verbs: a line of help for each, and nothing imported but the one that is asked for."""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _command_line import Parser


@dataclass(frozen=True)
class Verb:
    """A verb of a command line.

    Attributes:
        summary: a line about it.
        run: does what the arguments say, and returns the exit code, None for 0.
        arguments: each adds some to a parser.
        text: its help; None for the docstring of `run`.
    """

    summary: str
    run: Callable[[argparse.Namespace], int | None]
    arguments: Sequence[Callable[[argparse.ArgumentParser], Any]]
    text: str | None = None

    def parser(self, prog: str) -> argparse.ArgumentParser:
        """That reads what follows the verb; `prog` is the command with it."""
        parser = Parser(self.text or inspect.getdoc(self.run) or self.summary, prog=prog)
        for add in self.arguments:
            add(parser)
        parser.set_defaults(run=self.run)
        return parser


# a verb, or the module that is one: with a docstring, `add_arguments` and `run`
Verbs = Mapping[str, Verb | str]


def verb_of(entry: Verb | str) -> Verb:
    """What an entry of a table stands for; its module is imported."""
    if isinstance(entry, Verb):
        return entry
    module = importlib.import_module(entry)
    text = module.__doc__ or ""
    return Verb(text.partition("\n")[0], module.run, [module.add_arguments], text)


def parse_verb(about: str | None, prog: str, verbs: Verbs, arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of the verb that a command line begins with, and as `run` what does them.

    Args:
        about: the help of the command itself, without its verbs.
        prog: how it is called.
        verbs: by name.
        arguments: None for those of this process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] and given[0] in verbs:
        # KEY VALUE pairs may follow options that follow a path, which parse_args would not take
        return verb_of(verbs[given[0]]).parser(f"{prog} {given[0]}").parse_intermixed_args(given[1:])
    lines = []
    if given[:1] in (["-h"], ["--help"]):
        lines = [f"  {name:12} {verb_of(entry).summary}" for name, entry in verbs.items()]
    overview = Parser(about, prog=prog, epilog="\n".join(["verbs:", *lines]))
    overview.add_argument("verb", choices=verbs, metavar="VERB", help="see below")
    return overview.parse_args(given[:1])


def run_verb(args: argparse.Namespace) -> int | None:
    """Do what `parse_verb` has read; returns the exit code, None for 0."""
    return args.run(args)

"""The reference of the command line, made from the parsers that the command itself uses.

The line `<!-- reference of the command line -->` of a page becomes a section for each command.
"""

import argparse
import os
import re
import runpy
from unittest.mock import patch

MARK = "<!-- reference of the command line -->"


class _Found(BaseException):
    """Carries the parser out of the command before it reads any argument."""


def parser():
    """The parser of `python -m tfprune`, whichever module makes it."""

    def stop(self, *arguments, **named):
        raise _Found(self)

    with patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            runpy.run_module("tfprune", run_name="__main__")
        except _Found as found:
            return found.args[0]
    raise RuntimeError("Expected `python -m tfprune` to parse its arguments with argparse.")


def reference(top):
    """The sections of all commands, as Markdown."""
    sections = [_usage(top)]
    for command, summary in _commands(top):
        sections += [f"## {command.prog}", f"{_sentence(command.description or summary)}"]
        sections += [_usage(command), *_tables(command)]
    return "\n\n".join([*sections, "## Exit codes", f"```text\n{top.epilog.rstrip()}\n```"])


def _commands(top):
    """`(parser, summary)` of each command; a command with actions gives these instead."""
    for action in top._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, command in action.choices.items():
            inner = list(_commands(command))
            yield from inner or [(command, helps[name])]


def _usage(one):
    with patch.dict(os.environ, COLUMNS="90"):
        return f"```text\n{one.format_usage().rstrip()}\n```"


def _tables(command):
    for group in command._action_groups:
        rows = [
            [f"`{_names(action)}`", _meaning(action), _default(action)]
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
        ]
        if rows:
            title = group.title[:1].upper() + group.title[1:]
            columns = 3 if any(row[2] for row in rows) else 2
            table = [[title, "", "Default"], ["---"] * 3, *rows]
            yield "\n".join(f"| {' | '.join(row[:columns])} |" for row in table)


def _names(action):
    value = "" if action.nargs == 0 else _value(action)
    if not action.option_strings:
        return value.strip() or action.dest.upper()
    return ", ".join(action.option_strings) + value


def _value(action):
    if action.metavar is not None:
        named = action.metavar if isinstance(action.metavar, tuple) else (action.metavar,)
        return " " + " ".join(named)
    return f" {action.dest.upper()}" if action.choices is None else ""


def _meaning(action):
    # Some end with their default in brackets, which has a column of its own here.
    text = re.sub(r" ?\([\d.]+\)$", "", action.help or "")
    # The names have a sentence of their own.
    text = re.sub(r"(: |one of )?%\(choices\)s$", "", text)
    parts = [_sentence(text.replace("|", r"\|"))] if text else []
    if action.choices is not None and not all(str(c) in text for c in action.choices):
        parts.append("One of " + ", ".join(f"`{choice}`" for choice in action.choices) + ".")
    if action.required and action.option_strings:
        parts.append("Required.")
    return " ".join(parts)


def _default(action):
    if not action.default or action.default == argparse.SUPPRESS:
        return "`0`" if action.default == 0 and action.type in (int, float) else ""
    listed = action.default if isinstance(action.default, list) else [action.default]
    return f"`{' '.join(map(str, listed))}`"


def _sentence(text):
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ")")) else f"{text}."


def _read(app, document, source):
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference(parser()))


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}

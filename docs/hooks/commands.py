"""A hook of MkDocs: put every command and its options, as the parser has them, into reference/commands.md."""

import argparse
import logging

from mkdocs.structure.pages import Page

from longtail.cli import parser

PAGE, MARK = "reference/commands.md", "<!-- commands -->"
LOG = logging.getLogger("mkdocs.hooks.commands")


def on_page_markdown(markdown: str, page: Page, **_: object) -> str | None:
    """Replace the mark on the page by a section a command; warn of a command that the overview leaves out."""
    if page.file.src_uri != PAGE:
        return None
    commands = _commands()
    for name in commands:
        if f"(#{name})" not in markdown:
            LOG.warning("%s: the overview does not link to #%s", PAGE, name)
    return markdown.replace(MARK, "\n\n".join(section(name, sub) for name, sub in commands.items()))


def section(name: str, sub: argparse.ArgumentParser) -> str:
    """A command as a section: what it does, how it is called, its arguments."""
    usage = sub.format_usage().removeprefix("usage: ").split()
    lines = [f"### `longtail {name}` {{#{name}}}", "", _sentence(sub.description or "")]
    lines += ["", "```text", " ".join(usage), "```"]
    arguments = [action for action in sub._actions if not isinstance(action, argparse._HelpAction)]
    if arguments:
        lines += ["", "| argument | meaning |", "|:--|:--|", *map(_row, arguments)]
    return "\n".join(lines)


def _commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (act for act in parser()._actions if isinstance(act, argparse._SubParsersAction))
    return dict(found.choices)


def _row(action: argparse.Action) -> str:
    shown = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if action.choices:
        shown = "{" + ",".join(map(str, action.choices)) + "}"
    name = f"{action.option_strings[-1]} {shown}".strip() if action.option_strings else str(shown)
    needed = " Required." if action.option_strings and action.required else ""
    text = f"{_sentence(action.help)}{needed}".strip() if action.help else needed.strip()
    return f"| `{name}` | {text.replace('|', chr(92) + '|')} |"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""

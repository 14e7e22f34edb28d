"""The reference of the command line, written from the click commands themselves.

sphinx-click asks a group for its registered commands, and ours are imported at their first use; thirty lines do it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
from plain_text import escape
from sphinx.application import Sphinx

from scoreplug import registry
from scoreplug.cli import main
from scoreplug.registry import Registry, Selection

PAGE = "reference/commands.rst"


def write(path: Path) -> None:
    """Write the page, unless it is there already."""
    previous = registry.default()
    registry.use(Registry(Selection(autoload=False)))  # the verbs of the plugins of whoever builds are not ours
    try:
        text = "\n".join(_page()) + "\n"
    finally:
        registry.use(previous)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _page() -> Iterator[str]:
    yield from (
        "Command line",
        "============",
        "",
        "Written from the commands themselves: ``scoreplug VERB --help`` says the same.",
        "",
    )
    yield from (
        "Exit codes: 0 done, 1 something failed on the way, 2 the input was wrong, 130 after Ctrl-C and 143 after",
        "SIGTERM. An error is one line on stderr;",
    )
    yield from ("``scoreplug --traceback VERB ...`` shows where it comes from.", "")
    context = click.Context(main, info_name="scoreplug")
    yield from _command(main, context, "-")
    for verb in main.list_commands(context):
        command = main.get_command(context, verb)
        if command is not None and not command.hidden:
            yield from _tree(command, click.Context(command, info_name=verb, parent=context))


def _tree(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from _command(command, context, "-")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            if sub is not None:
                yield from _tree(sub, click.Context(sub, info_name=name, parent=context))


def _command(command: click.Command, context: click.Context, line: str) -> Iterator[str]:
    path = context.command_path
    name = " ".join(word for word in path.split() if not word.startswith("["))
    yield from ("", f".. _{name.replace(' ', '-')}:", "", name, line * len(name), "", f".. program:: {name}", "")
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield from (".. code-block:: text", "", f"   {usage}", "")
    yield from _help(command.help or "")
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            record = parameter.get_help_record(context)
            assert record is not None
            yield from (f".. option:: {record[0].replace(' / ', ', ')}", "", f"   {escape(record[1] or '')}", "")


def _help(text: str) -> Iterator[str]:
    """Paragraphs; one that click must not wrap (a line with \\b alone) stays as it is."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0].strip() == "\b":
            yield from (".. code-block:: text", "", *(f"   {line}" for line in lines[1:]), "")
        else:
            yield from (*escape(paragraph).splitlines(), "")


def _before_reading(app: Sphinx) -> None:
    write(Path(app.srcdir) / PAGE)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

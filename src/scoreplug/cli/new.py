"""`scoreplug new KIND NAME`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scoreplug.registry.specs import KINDS


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@click.command("new")
@click.argument("kind", shell_complete=_complete)
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default="here",
    metavar="DIR",
    help="Where to make the folder scoreplug-NAME.",
)
@click.option("--author", default="", metavar="TEXT", help="Name, or 'Name <address>'.")
@click.option("--summary", metavar="TEXT", help="One line for `scoreplug list`.")
@click.option("--ci/--no-ci", default=True, show_default=True, help="With a workflow for GitHub.")
@click.option("--force", is_flag=True, help="Take a name that another component or Python's library has.")
def command(*, kind: str, name: str, out: Path, author: str, summary: str | None, ci: bool, force: bool) -> None:
    """Start a plugin: a package with a working method, its tests and its checks.

    KIND is model, sde, operator, conditioner, sampler or problem; NAME is lower case with hyphens. The method is small
    and real, so that everything passes from the start; the places for your equation, parameters and paper are marked.

    \b
    scoreplug new conditioner my-method
    scoreplug new operator fan-beam --out ~/plugins --author "Ada Lovelace <ada@example.org>"
    """
    from scoreplug.scaffold import Project, settled, write

    about: dict[str, Any] = {} if summary is None else {"summary": summary}
    project = settled(Project(kind=kind, name=name, author=author, ci=ci, **about), force=force)
    folder = write(project, out)
    click.echo(f"made {folder}, {project.article} {kind} that works; your equation goes into {folder / project.method}")
    click.echo(
        f'\nnext:\n  scoreplug install -e "{folder}[test]"\n  scoreplug check {project.called}\n  pytest {folder}'
    )

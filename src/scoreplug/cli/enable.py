"""`scoreplug enable NAME...`"""

from __future__ import annotations

import click

from scoreplug import registry
from scoreplug.cli import _complete


@click.command("enable")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete.disabled)
def command(*, names: tuple[str, ...]) -> None:
    """Load plugins again that `scoreplug disable` left out."""
    from scoreplug.cli._installed_plugins import resolve
    from scoreplug.registry._user_config import read_disabled, user_config, write_disabled

    file = user_config()
    disabled = read_disabled(file)
    wanted = list(dict.fromkeys(resolve(name, also=disabled) for name in names))
    for name in wanted:
        distribution = name.partition(":")[0]
        if name not in disabled and distribution in disabled:
            raise click.UsageError(f"{name!r} is disabled with all of {distribution!r}; enable that")
    if any(name in disabled for name in wanted):
        write_disabled(file, [name for name in disabled if name not in wanted])
    blocked = registry.Selection.from_environment().blocked
    for name in wanted:
        click.echo(f"{name} is enabled" if name in disabled else f"{name} was not disabled")
        if name in blocked:
            click.echo(f"scoreplug: {name} stays blocked, {blocked[name]}", err=True)

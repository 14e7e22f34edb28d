"""`scoreplug disable NAME...`"""

from __future__ import annotations

import click

from scoreplug.cli import _complete


@click.command("disable")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete.plugins)
def command(*, names: tuple[str, ...]) -> None:
    """Leave installed plugins out until `scoreplug enable`: none of their code runs.

    NAME is a plugin, or a distribution for all of its plugins. What is disabled stands in plugins.toml, in the folder
    SCOREPLUG_CONFIG_DIR or in that of the user's configuration (~/.config/scoreplug on Linux). For one command,
    `scoreplug -p no:NAME` does the same.
    """
    from scoreplug.cli._installed_plugins import resolve
    from scoreplug.registry._user_config import read_disabled, user_config, write_disabled

    file = user_config()
    disabled, wanted = read_disabled(file), list(dict.fromkeys(resolve(name) for name in names))
    if new := [name for name in wanted if name not in disabled]:
        write_disabled(file, [*disabled, *new])
    for name in wanted:
        click.echo(f"{name} is disabled, in {file}" if name in new else f"{name} was disabled already")

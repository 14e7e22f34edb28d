"""`scoreplug uninstall NAME...`"""

from __future__ import annotations

from collections.abc import Iterable

import click

from scoreplug.cli import _complete


@click.command("uninstall")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete.plugins)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(*, names: tuple[str, ...], yes: bool) -> None:
    """Uninstall plugins, and say what went away.

    NAME is a plugin or its distribution, as `scoreplug plugins` shows it. A plugin that does not load can be
    uninstalled like any other: none of its code runs.
    """
    from scoreplug.cli import _pip
    from scoreplug.cli._installed_plugins import resolve
    from scoreplug.cli._snapshot import Snapshot, difference

    distributions = list(dict.fromkeys(resolve(name).partition(":")[0] for name in names))
    _pip.refuse_if_managed()
    if not yes:
        click.confirm(f"Uninstall {', '.join(distributions)}?", abort=True, err=True)
    before = Snapshot.take_or_none()
    if code := _pip.uninstall(distributions):
        click.echo(f"scoreplug: the installer ended with exit code {code}", err=True)
        raise click.exceptions.Exit(code)
    _forget(distributions)
    for line in difference(before, Snapshot.take()):
        click.echo(line)


def _forget(distributions: Iterable[str]) -> None:
    """A plugin that was disabled is not so when it is installed again."""
    from scoreplug.registry._user_config import read_disabled, user_config, write_disabled

    file, gone = user_config(), set(distributions)
    try:
        disabled = read_disabled(file)
        left = [name for name in disabled if name.partition(":")[0] not in gone]
        if len(left) < len(disabled):
            write_disabled(file, left)
    except (ValueError, OSError) as error:
        click.echo(f"scoreplug: {error}", err=True)

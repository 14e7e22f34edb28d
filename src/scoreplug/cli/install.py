"""`scoreplug install PKG...`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from scoreplug.cli._installed_plugins import Installed


@click.command("install")
@click.argument("packages", metavar="PKG...", nargs=-1)
@click.option("-e", "--editable", "editables", metavar="PATH", multiple=True, help="Use the package where it lies.")
@click.option("-U", "--upgrade", is_flag=True, help="Take the newest version of what is installed already.")
@click.option("--dry-run", is_flag=True, help="Say what would be installed.")
def command(*, packages: tuple[str, ...], editables: tuple[str, ...], upgrade: bool, dry_run: bool) -> None:
    """Install plugins with this Python's pip (or uv), and say what they bring.

    PKG is whatever pip takes: a name, a name with a version, a URL, a folder, a wheel. Options of pip's own follow
    after --. scoreplug itself stays at its version: a plugin that needs another one is not installed.

    \b
    scoreplug install scoreplug-dncnn
    scoreplug install git+https://example.org/me/scoreplug-mine.git
    scoreplug install -e ./scoreplug-mine
    scoreplug install scoreplug-mine -- --index-url https://example.org/simple
    """
    from scoreplug.cli import _pip
    from scoreplug.cli._snapshot import Snapshot, difference

    if not packages and not editables:
        raise click.UsageError("which packages? Give their names, or -e PATH for a folder")
    _refuse_scoreplug_itself(packages)
    _pip.refuse_if_managed()
    before, there_before = Snapshot.take_or_none(), Installed.now()
    if code := _pip.install(packages, editables=editables, upgrade=upgrade, dry_run=dry_run):
        click.echo(f"scoreplug: nothing was installed; the installer ended with exit code {code}", err=True)
        raise click.exceptions.Exit(code)
    if dry_run:
        return
    after, there = Snapshot.take(), Installed.now()
    lines = list(difference(before, after))
    for name in [n for n in _wanted(packages, there_before, there) if n not in after.distributions()]:
        lines.append(f"{name} is installed, but declares no plugin in the entry-point group 'scoreplug'")
    for line in lines or ["nothing changed: it was installed already"]:
        click.echo(line)


def _refuse_scoreplug_itself(packages: Iterable[str]) -> None:
    if "scoreplug" in _names(packages):
        raise click.UsageError("scoreplug itself is no plugin; `python -m pip install --upgrade scoreplug` upgrades it")


def _wanted(packages: Iterable[str], before: Installed, after: Installed) -> Iterator[str]:
    """The distributions that were asked for: those named, and those that now come from a URL or folder."""
    names = _names(packages)
    for name in after.stamps:
        changed = after.stamps[name] != before.stamps.get(name)
        if name in names or (changed and name in after.direct):
            yield name


def _names(packages: Iterable[str]) -> set[str]:
    """The names among what pip takes; a URL or a path has none."""
    from packaging.requirements import InvalidRequirement, Requirement

    from scoreplug.registry._installed import canonical

    found = set()
    for package in packages:
        try:
            found.add(canonical(Requirement(package).name))
        except InvalidRequirement:
            continue
    return found

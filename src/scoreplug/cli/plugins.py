"""`scoreplug plugins`"""

from __future__ import annotations

import click

from scoreplug import registry
from scoreplug.cli._table import print_table
from scoreplug.foreign import one_line, printable


@click.command("plugins")
@click.option("-v", "--verbose", is_flag=True, help="Also show the traceback of each failure.")
@click.option("--failed", is_flag=True, help="Only the plugins that did not load.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per plugin.")
@click.option("--requirements", is_flag=True, help="Print a requirements file of the plugins that are in use.")
def command(*, verbose: bool, failed: bool, as_json: bool, requirements: bool) -> None:
    """List the plugins, with version, state and what went wrong."""
    if requirements:
        if failed or as_json:
            raise click.UsageError("--requirements stands alone: leave --failed and --json out")
        for line in dict.fromkeys(_requirement(p) for p in registry.plugins() if p.state == "ok"):
            click.echo(line)
        return
    shown = [plugin for plugin in registry.plugins() if plugin.broken or not failed]
    if as_json:
        import json

        click.echo(json.dumps([_described(plugin) for plugin in shown], indent=2))
    elif not shown:
        click.echo("no plugin failed to load" if failed else "no plugin is installed", err=True)
    else:
        print_table(("plugin", "version", "state", "components", "remarks"), [_row(plugin) for plugin in shown])
        for plugin in shown:
            if verbose and plugin.traceback:
                trace = printable(plugin.traceback)
                click.echo(f"\n{plugin.name}, while {_PHASES[plugin.phase or 'import']}:\n{trace}")
    selection = registry.default().selection
    for line in (*selection.notes, *selection.misses(plugin.name for plugin in registry.plugins())):
        click.echo(f"scoreplug: {one_line(line)}", err=True)


_PHASES = {
    "import": "being imported",
    "register": "being registered",
    "hooks": "its hooks were checked",
    "components": "naming its components",
}


def _row(plugin: registry.Plugin) -> tuple[str, str, str, str, str]:
    state = f"{plugin.state} ({plugin.phase})" if plugin.phase else plugin.state
    return plugin.name, plugin.version or "", state, str(len(plugin.components)), _remarks(plugin)


def _remarks(plugin: registry.Plugin) -> str:
    origin = plugin.origin()
    remarks = [plugin.reason] if plugin.reason else []
    if plugin.heavy:
        remarks.append(f"imports {', '.join(plugin.heavy)} at start-up, which slows every command down")
    if origin and origin.commit:
        remarks.append(f"{origin.url} at {origin.commit}")
    elif origin and origin.editable:
        remarks.append(f"editable, {origin.url}")
    elif plugin.info is None:
        remarks.append(plugin.value)
    return "; ".join(remarks)


def _requirement(plugin: registry.Plugin) -> str:
    """The line that makes pip install the same again."""
    if plugin.info is None:
        return f"# {plugin.value}: a file, to be given to -p"
    origin = plugin.origin()
    if origin is None:
        return f"{plugin.distribution}=={plugin.version}"
    at = f"@{origin.commit}" if origin.commit else ""
    part = f"#subdirectory={origin.subdirectory}" if origin.subdirectory else ""
    url = f"{origin.vcs}+{origin.url}" if origin.vcs else origin.url
    if origin.editable and url.startswith("file://"):
        from urllib.parse import unquote, urlsplit

        return f"-e {unquote(urlsplit(url).path)}"
    return f"{plugin.distribution} @ {url}{at}{part}"


def _described(plugin: registry.Plugin) -> dict[str, object]:
    origin = plugin.origin()
    return {
        "name": plugin.name,
        "version": plugin.version,
        "value": plugin.value,
        "state": plugin.state,
        "phase": plugin.phase,
        "reason": plugin.reason,
        "requirement": plugin.requirement,
        "traceback": plugin.traceback,
        "heavy": list(plugin.heavy),
        "components": [f"{spec.kind}:{spec.name}" for spec in plugin.components],
        "url": origin.url if origin else None,
        "commit": origin.commit if origin else None,
        "editable": origin.editable if origin else False,
    }

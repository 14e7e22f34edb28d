"""`scoreplug list [KIND]`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scoreplug import registry
from scoreplug.cli._table import print_table
from scoreplug.registry.specs import KINDS

if TYPE_CHECKING:
    from scoreplug.run.compatibility import Verdict


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per component or pair.")
@click.option("--matrix", is_flag=True, help="Print which components go together, and why others do not.")
def command(*, kind: str | None, as_json: bool, matrix: bool) -> None:
    """List the components, all or of one KIND, or with --matrix how they go together.

    KIND is model, sde, operator, conditioner, sampler or problem.
    """
    if matrix:
        if kind is not None:
            raise click.UsageError("--matrix shows all kinds: leave KIND out")
        _print_matrix(as_json=as_json)
        return
    components = registry.components(kind)
    if as_json:
        import json

        click.echo(json.dumps([describe(component) for component in components], indent=2))
    elif not components:
        click.echo(f"no {kind or 'component'} is registered", err=True)
    else:
        print_table(("kind", "name", "summary", "state"), [_row(component) for component in components])


def describe(component: registry.Component) -> dict[str, object]:
    """All that is known of a component without importing it, as JSON takes it."""
    import attrs

    return {
        "kind": component.spec.kind,
        "id": component.id,
        "state": component.state,
        "plugin": component.plugin.name,
        "version": component.plugin.version,
        **attrs.asdict(component.spec),
    }


def _row(component: registry.Component) -> tuple[str, str, str, str]:
    state = {
        "ok": "",
        "shadowed": f"shadowed: {component.spec.name!r} is built in",
        "ambiguous": f"ambiguous: several plugins have a {component.spec.name!r}",
    }[component.state]
    return component.spec.kind, component.name, component.spec.summary, state


def _print_matrix(*, as_json: bool) -> None:
    from scoreplug.run import compatibility

    verdicts = compatibility.matrix()
    if as_json:
        import json

        click.echo(json.dumps([_describe_pair(verdict) for verdict in verdicts], indent=2))
        return
    for kinds in dict.fromkeys((v.first.kind, v.second.kind) for v in verdicts):
        pairs = [v for v in verdicts if (v.first.kind, v.second.kind) == kinds]
        columns = list(dict.fromkeys(v.first.name for v in pairs))
        rows = {v.second.name: {w.first.name: w for w in pairs if w.second is v.second} for v in pairs}
        cells = [(name, *(row[column].state for column in columns)) for name, row in rows.items()]
        print_table((f"{kinds[1]} \\ {kinds[0]}", *columns), cells)
        click.echo("")
    for reason in dict.fromkeys(v.reason for v in verdicts if v.reason):
        click.echo(reason)
    click.echo(
        "published: so it was published. runs: the parts fit. A combination runs if its pairs do, "
        "under every SDE: every model runs under every process."
    )


def _describe_pair(verdict: Verdict) -> dict[str, str]:
    return {
        verdict.first.kind: verdict.first.name,
        verdict.second.kind: verdict.second.name,
        "state": verdict.state,
        "reason": verdict.reason,
    }

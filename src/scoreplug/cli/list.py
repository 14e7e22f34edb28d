"""`scoreplug list [KIND]`"""

from __future__ import annotations

import click

from scoreplug import registry
from scoreplug.cli._table import print_table
from scoreplug.registry.specs import KINDS


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    del ctx, param
    return [kind for kind in KINDS if kind.startswith(incomplete)]


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per component.")
def command(*, kind: str | None, as_json: bool) -> None:
    """List the components, all or of one KIND.

    KIND is model, sde, operator, conditioner, sampler or problem.
    """
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

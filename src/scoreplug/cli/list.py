"""`scoreplug list [KIND]`"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from scoreplug import registry
from scoreplug.cli import _complete
from scoreplug.cli._bibtex import identifier
from scoreplug.cli._table import print_table

if TYPE_CHECKING:
    from scoreplug.run.compatibility import Verdict


@click.command("list")
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=_complete.kinds)
@click.option("--plugin", metavar="NAME", shell_complete=_complete.loaded, help="Only what this plugin brings.")
@click.option("--provides", metavar="CAP", shell_complete=_complete.capabilities, help="Only what provides this.")
@click.option("--needs", metavar="CAP", shell_complete=_complete.capabilities, help="Only what needs this.")
@click.option("--reference", metavar="ID", help="Only what has this source, as arXiv:2209.14687 or doi:...")
@click.option("--search", metavar="TEXT", help="Only what has these words in its name, summary, references, ...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per component or pair.")
@click.option("--matrix", is_flag=True, help="Print which components go together, and why others do not.")
def command(*, kind: str | None, as_json: bool, matrix: bool, **filters: str | None) -> None:
    """List the components, all or of one KIND, or with --matrix how they go together.

    KIND is model, sde, operator, conditioner, sampler or problem. Of several filters all must hold.

    \b
    scoreplug list operator --provides svd
    scoreplug list --search "null space"
    scoreplug list --reference arXiv:2209.14687
    """
    if matrix:
        given = [f"--{name}" for name, value in filters.items() if value is not None]
        if kind is not None or given:
            raise click.UsageError(f"--matrix shows all kinds: leave {' and '.join(['KIND'] * bool(kind) + given)} out")
        _print_matrix(as_json=as_json)
        return
    components = _filtered(registry.components(kind), **filters)
    if as_json:
        import json

        # A plugin may put whatever it likes into an example.
        click.echo(json.dumps([describe(component) for component in components], indent=2, default=repr))
    elif not components:
        reason = "no component matches" if any(filters.values()) else f"no {kind or 'component'} is registered"
        click.echo(reason, err=True)
    else:
        print_table(("kind", "name", "summary", "state"), [_row(component) for component in components])


def _filtered(
    components: Iterable[registry.Component],
    *,
    plugin: str | None,
    provides: str | None,
    needs: str | None,
    reference: str | None,
    search: str | None,
) -> list[registry.Component]:
    found, everything = list(components), registry.components()
    if plugin is not None:
        _known("no plugin {!r} is loaded", plugin, (n for c in everything for n in _owner(c)))
        found = [c for c in found if plugin in _owner(c)]
    if provides is not None:
        _known(
            "nothing provides {!r}", provides, (name for c in everything for name in getattr(c.spec, "provides", ()))
        )
        found = [c for c in found if provides in getattr(c.spec, "provides", ())]
    if needs is not None:
        _known("nothing needs {!r}", needs, (name for c in everything for name in getattr(c.spec, "needs", ())))
        found = [c for c in found if needs in getattr(c.spec, "needs", ())]
    if reference is not None:
        found = [c for c in found if identifier(reference) in map(identifier, c.spec.references)]
    if search is not None:
        words = search.lower().split()
        found = [c for c in found if all(word in _text(c) for word in words)]
    return found


def _owner(component: registry.Component) -> tuple[str, str]:
    return component.plugin.name, component.plugin.distribution


def _known(complaint: str, name: str, known: Iterable[str]) -> None:
    """Tell a slip of the pen from a question to which the answer is empty."""
    names = list(dict.fromkeys(known))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(names) or 'none'}"
        raise ValueError(f"{complaint.format(name)}; {hint}")


def _text(component: registry.Component) -> str:
    """All the words of a spec."""
    import attrs

    fields = attrs.asdict(component.spec, filter=lambda field, value: isinstance(value, str | tuple))
    parts = (" ".join(map(str, value)) if isinstance(value, tuple) else value for value in fields.values())
    return " ".join([component.spec.kind, component.plugin.name, *parts]).lower()


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

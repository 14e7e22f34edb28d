"""`scoreplug check NAME`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from scoreplug import registry
from scoreplug.cli import _complete
from scoreplug.cli._table import print_table
from scoreplug.registry.specs import KINDS
from scoreplug.testing.kit import LEVELS

if TYPE_CHECKING:
    from scoreplug.testing import Result, Subject


@click.command("check")
@click.argument("name", required=False, shell_complete=_complete.components())
@click.option("--kind", type=click.Choice(KINDS), help="Kind of the component, if several have the name.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="numerics",
    show_default=True,
    help="The last level that is run: the spec alone, tiny instances, closed forms.",
)
@click.option("--xfail", "expected", metavar="CHECK=REASON", multiple=True, help="A check that is known to fail.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A parameter of the tiny instance.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per check.")
@click.option("--list", "listing", is_flag=True, help="List the checks and what each one states.")
def command(
    *,
    name: str | None,
    kind: str | None,
    level: str,
    expected: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    listing: bool,
) -> None:
    """Check that a component does what every component has to do.

    NAME is a component's name, alias or full id `dist:name`, or a plugin's name, for all of its components. The exit
    code is 1 if a check fails that was not expected to, or holds although it was expected to fail.
    """
    from scoreplug import testing

    if listing:
        rows = [(c.name, c.level, " ".join(c.kinds), c.states) for c in testing.iter_checks(kind)]
        print_table(("check", "level", "kinds", "states"), rows)
        return
    if name is None:
        raise click.UsageError("which component? Give its NAME, or --list for the checks")
    expected_failures = dict(_pair(text, "--xfail", "CHECK=REASON") for text in expected)
    params = dict(_setting(text) for text in settings)
    results = [
        result
        for subject in _subjects(name, kind, params)
        for result in testing.run_checks(subject, level=level, expected_failures=expected_failures).results  # type: ignore[arg-type]
    ]
    if as_json:
        import json

        import attrs

        click.echo(json.dumps([attrs.asdict(result) for result in results], indent=2))
    else:
        print_table(("component", "check", "level", "result", "reason"), [_row(result) for result in results])
    failed = [result for result in results if result.state in ("fail", "xpass")]
    if not as_json:
        passed = sum(result.state == "pass" for result in results)
        click.echo(f"{passed} passed, {len(failed)} failed, {len(results) - passed - len(failed)} skipped or expected")
    if failed:
        raise SystemExit(1)


def _subjects(name: str, kind: str | None, params: dict[str, object]) -> list[Subject]:
    from scoreplug.testing import kit

    plugin = next((p for p in registry.plugins() if p.name == name and p.components), None)
    owned = [c for c in registry.components(kind) if plugin is not None and c.plugin.name == plugin.name]
    return [kit.Subject.of(c, params) for c in owned] or [kit.find(name, kind, params=params)]


def _setting(text: str) -> tuple[str, object]:
    from scoreplug.run.overrides import parse_assignment

    path, value = parse_assignment(f"it.{text}")
    return ".".join(path[1:]), value


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise click.BadParameter(f"takes {form} (got {text!r})", param_hint=option)
    return key, value


def _row(result: Result) -> tuple[str, ...]:
    return result.component, result.check, result.level, result.state, result.reason

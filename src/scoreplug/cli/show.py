"""`scoreplug show NAME`"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import click

from scoreplug import registry
from scoreplug.cli import _complete
from scoreplug.cli._table import print_table
from scoreplug.cli.list import describe
from scoreplug.param import Param, parameters


@click.command("show")
@click.argument("name", shell_complete=_complete.components())
@click.option("--kind", shell_complete=_complete.kinds, help="Which one, if several kinds have the name.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.option("--toml", "as_toml", is_flag=True, help="Print its table of a run config, with every parameter.")
@click.option("--bibtex", "as_bibtex", is_flag=True, help="Print the BibTeX entries of its references.")
def command(*, name: str, kind: str | None, as_json: bool, as_toml: bool, as_bibtex: bool) -> None:
    """Show what is known of the component NAME: origin, needs, documentation and parameters.

    NAME is a name, an alias or a full id such as scoreplug:dps.
    """
    if as_json + as_toml + as_bibtex > 1:
        raise click.UsageError("--json, --toml and --bibtex exclude each other: give one of them")
    component = _the_one(name, kind)
    if as_json:
        import json

        click.echo(json.dumps(_described(component), indent=2, default=repr))
    elif as_toml:
        from scoreplug.cli._toml import stub

        click.echo(stub(component, _parameters(component.factory())))
    elif as_bibtex:
        from scoreplug.cli._bibtex import entries

        if not component.spec.references:
            click.echo(f"{component.spec.kind} {component.name!r} has no references", err=True)
        click.echo("\n\n".join(entries(component)), nl=bool(component.spec.references))
    else:
        _print(component)


def _print(component: registry.Component) -> None:
    for line in _facts(component):
        click.echo(line)
    factory = component.factory()
    for text in _documentation(factory):
        click.echo(f"\n{text}")
    if declared := _parameters(factory):
        click.echo("\nParameters:")
        print_table(
            ("name", "type", "default", "range", "unit", "meaning"),
            [(p.name, p.type_name, _default(p), p.range, p.unit or "", p.doc) for p in declared],
        )


def _the_one(name: str, kind: str | None) -> registry.Component:
    if kind is not None:
        return registry.find(kind, name)
    kinds = list(dict.fromkeys(component.spec.kind for component in registry.search(name)))
    if len(kinds) > 1:
        options = " or ".join(f"--kind {kind}" for kind in kinds)
        raise click.UsageError(f"{name!r} is the name of a {' and of a '.join(kinds)}; add {options}")
    return registry.find(kinds[0], name)


def _facts(component: registry.Component) -> Iterator[str]:
    spec, plugin = component.spec, component.plugin
    yield f"{component.name} ({spec.kind}): {spec.summary}"
    yield f"  id          {component.id}"
    yield f"  plugin      {plugin.name} {plugin.version or ''}{_origin(plugin)}".rstrip()
    yield f"  factory     {spec.factory}"
    for field in attrs.fields(type(spec)):
        if field.name not in ("name", "summary", "factory", "api") and (value := getattr(spec, field.name)):
            yield f"  {field.name:<10}  {_words(value)}"


def _origin(plugin: registry.Plugin) -> str:
    origin = plugin.origin()
    if origin is None:
        return ""
    commit = f" at {origin.commit}" if origin.commit else ""
    return f", {'editable ' if origin.editable else ''}from {origin.url}{commit}"


def _words(value: object) -> str:
    if value is True:
        return "yes"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _documentation(factory: Callable[..., Any]) -> Iterator[str]:
    """The module's text, which has the equation and the reference (one method, one file), then the class's own."""
    for owner in (importlib.import_module(factory.__module__), factory):
        text = vars(owner).get("__doc__")
        if isinstance(text, str) and text.strip():
            yield inspect.cleandoc(text)


def _parameters(factory: Callable[..., Any]) -> tuple[Param, ...]:
    return parameters(factory) if inspect.isclass(factory) and attrs.has(factory) else ()


def _default(parameter: Param) -> str:
    return "required" if parameter.required else repr(parameter.default)


def _described(component: registry.Component) -> dict[str, object]:
    factory, origin = component.factory(), component.plugin.origin()
    return {
        **describe(component),
        "origin": attrs.asdict(origin) if origin else None,
        "doc": "\n\n".join(_documentation(factory)),
        "parameters": [_parameter(p) for p in _parameters(factory)],
    }


def _parameter(parameter: Param) -> dict[str, object]:
    return {
        "name": parameter.name,
        "type": parameter.type_name,
        "required": parameter.required,
        "default": None if parameter.required else parameter.default,
        "range": parameter.range,
        "choices": parameter.choices,
        "unit": parameter.unit,
        "doc": parameter.doc,
    }

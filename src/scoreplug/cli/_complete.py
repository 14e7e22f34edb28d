"""What the shell offers at TAB: names from the specs, without torch, and nothing at all rather than an error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from scoreplug import registry
from scoreplug.registry.specs import KINDS

Completer = Callable[[click.Context, click.Parameter, str], list[str]]
Command = TypeVar("Command", bound=Callable[..., object])


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The kinds of components."""
    del ctx, param
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def components(kind: str | None = None) -> Completer:
    """A completer for the names of one kind, or of all kinds."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        del param
        with _registry(ctx) as found:
            names = [c.name for c in found.components(kind)] if found else []
        return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]

    return complete


def name_option(kind: str, text: str, *, many: bool = False) -> Callable[[Command], Command]:
    """The option `--KIND NAME`, with its completion; `many` may be repeated, and arrives in the plural."""
    names = (f"--{kind}", f"{kind}s") if many else (f"--{kind}",)
    return click.option(*names, metavar="NAME", multiple=many, shell_complete=components(kind), help=text)


def plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The installed plugins but the built-in one; none of their code runs."""
    del ctx, param
    from scoreplug.cli._installed_plugins import third_parties

    return [name for name in third_parties() if name.startswith(incomplete)]


def loaded(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The plugins that have components, the built-in one among them."""
    del param
    with _registry(ctx) as found:
        names = [plugin.name for plugin in found.plugins if plugin.components] if found else []
    return [name for name in names if name.startswith(incomplete)]


def capabilities(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What some spec has in its field of the option's name."""
    with _registry(ctx) as found:
        specs = [c.spec for c in found.components()] if found else []
    names = sorted({name for spec in specs for name in getattr(spec, param.name or "", ())})
    return [name for name in names if name.startswith(incomplete)]


def disabled(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The plugins that `scoreplug disable` left out."""
    del ctx, param
    from scoreplug.registry._user_config import read_disabled, user_config

    try:
        return [name for name in read_disabled(user_config()) if name.startswith(incomplete)]
    except ValueError:
        return []


@contextlib.contextmanager
def _registry(ctx: click.Context) -> Iterator[registry.Registry | None]:
    """The registry that the words typed so far ask for; what plugins print must not land on the command line."""
    import attrs

    from scoreplug.cli._main import selection

    options = ctx.find_root().params
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            chosen = selection(options.get("options") or (), no_plugins=bool(options.get("no_plugins")))
        except (ValueError, OSError):
            yield None
        else:
            yield registry.Registry(attrs.evolve(chosen, strict=False))

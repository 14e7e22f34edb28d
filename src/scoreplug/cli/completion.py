"""`scoreplug completion [SHELL]`"""

from __future__ import annotations

import os

import click

_HINTS = {
    "bash": 'eval "$(scoreplug completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(scoreplug completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "scoreplug completion fish > ~/.config/fish/completions/scoreplug.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(tuple(_HINTS)), required=False)
def command(*, shell: str | None) -> None:
    """Print the script that completes verbs, options, and the names of components and plugins at TAB.

    SHELL is bash, zsh or fish; without it, that of the variable SHELL. Where it goes:

    \b
    bash   eval "$(scoreplug completion bash)"  in ~/.bashrc
    zsh    eval "$(scoreplug completion zsh)"  in ~/.zshrc, after compinit
    fish   scoreplug completion fish > ~/.config/fish/completions/scoreplug.fish
    """
    from click.shell_completion import get_completion_class

    from scoreplug.cli._main import main

    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    completion = get_completion_class(name) if name in _HINTS else None
    if completion is None:
        raise click.UsageError(f"which shell? Say {', '.join(_HINTS)} (SHELL says {name!r})")
    click.echo(completion(main, {}, "scoreplug", "_SCOREPLUG_COMPLETE").source())
    click.echo(f"# {_HINTS[name]}")

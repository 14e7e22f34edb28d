"""The group of all verbs: global options, lazy imports, and one clear line for whatever goes wrong."""

from __future__ import annotations

import difflib
import errno
import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from scoreplug import registry
from scoreplug.foreign import one_line

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_VERBS = {
    "list": "List the components: models, SDEs, operators, conditioners, samplers",
    "show": "Show a component: parameters, needs, references",
    "run": "Draw posterior samples: the demo without arguments, or a config",
    "rerun": "Compute a run directory again, and say where it differs",
    "bench": "Measure methods on problems whose posterior is known",
    "train": "Train a prior by denoising score matching",
    "check": "Check that a component does what every component has to do",
    "new": "Start a plugin of your own: a package that installs, with its tests",
    "plugins": "List the plugins and how their loading ended",
    "install": "Install plugins, and say what they bring",
    "uninstall": "Uninstall plugins, and say what went away",
    "enable": "Load plugins again that were disabled",
    "disable": "Leave installed plugins out until further notice",
    "info": "Print versions, devices and plugins, to paste into an issue",
    "completion": "Print the completion script of a shell",
}
"""Each verb is `command` in the module of its name; its short help stands here, so that --help imports none of them."""

_SHOW_TROUBLE = ("plugins", "info")
"""Verbs that say themselves what is wrong with the plugins."""


class LazyGroup(click.Group):
    """A group that imports a verb when it is called, and reports errors in one line unless `--traceback` is given."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"scoreplug.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # click itself suggests from the commands that are imported already, which here are none
        name = args[0]
        if name not in _VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, _VERBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(_VERBS)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for name, text in _VERBS.items() if name.startswith(incomplete)]

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.is_eager = False  # so that -p is read first, wherever --help stands
        return option

    def invoke(self, ctx: click.Context) -> Any:
        try:
            value = super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.params["traceback"] or _is_broken_pipe(error):
                raise
            raise _failure(error) from error
        if ctx.invoked_subcommand not in _SHOW_TROUBLE and registry.default().loaded:
            for line in registry.default().trouble():
                click.echo(f"scoreplug: {one_line(line)}", err=True)
        return value


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scoreplug", prog_name="scoreplug")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an error.")
@click.option(
    "-p",
    "options",
    metavar="SPEC",
    multiple=True,
    is_eager=True,
    help="Block a plugin (no:NAME) or load one from a file (FILE.py); may be repeated.",
)
@click.option("--no-plugins", is_flag=True, is_eager=True, help="Load no installed plugin but the built-in one.")
@click.option("--strict-plugins", is_flag=True, is_eager=True, help="Stop if a plugin does not load.")
def main(*, traceback: bool, options: tuple[str, ...], no_plugins: bool, strict_plugins: bool) -> None:
    """Posterior sampling with score-based priors.

    \b
    scoreplug list sampler         what there is
    scoreplug show dps             what it takes
    scoreplug run                  the demo

    \b
    Environment, beside the options: SCOREPLUG_BLOCK=NAME,... SCOREPLUG_PLUGINS=FILE.py:...
    SCOREPLUG_DISABLE_AUTOLOAD=1 SCOREPLUG_STRICT=1 SCOREPLUG_CONFIG_DIR=DIR
    """
    del traceback  # read by LazyGroup.invoke
    registry.use(registry.Registry(selection(options, no_plugins=no_plugins, strict_plugins=strict_plugins)))


def selection(options: Iterable[str], *, no_plugins: bool = False, strict_plugins: bool = False) -> registry.Selection:
    """Which plugins the environment and the global options ask for. Raises ValueError or OSError."""
    import attrs

    chosen = registry.Selection.from_environment().with_options(options)
    return attrs.evolve(chosen, autoload=chosen.autoload and not no_plugins, strict=chosen.strict or strict_plugins)


class _BadInput(click.ClickException):
    exit_code = 2


def _failure(error: Exception) -> click.ClickException:
    """One line for an error: exit code 2 if the user's input was wrong, 1 if something failed on the way."""
    # The registry's own errors are LookupErrors; a KeyError or IndexError is a slip in some code, and says little.
    text = "\n".join(one_line(line) for line in str(error)[:100_000].splitlines()[:40])
    if isinstance(error, ValueError | LookupError | OSError) and not isinstance(error, KeyError | IndexError):
        return _BadInput(text)
    if isinstance(error, registry.PluginError):
        return click.ClickException(text)
    return click.ClickException(f"{type(error).__name__}: {text} (`scoreplug --traceback ...` shows where)")


def _is_broken_pipe(error: Exception) -> bool:
    """The reader of a pipe has gone, as in `scoreplug list | head -1`; click ends quietly then."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE

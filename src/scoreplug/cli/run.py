"""`scoreplug run`: the demo, a config, or a config with other components."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoreplug.cli import _complete
from scoreplug.cli._stop import Stop, stoppable

if TYPE_CHECKING:
    from scoreplug.run.config import RunConfig
    from scoreplug.run.overrides import Assignment
    from scoreplug.run.result import Result

MISFIT = 3.0
"""Residual of the samples, over the noise, from which on the user is told that they miss the measurement."""

_COMPONENTS = ("model", "sde", "operator", "conditioner", "sampler")


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@_complete.name_option("model", "Prior: a registered name, or a .safetensors file of `scoreplug train`.")
@_complete.name_option("sde", "Forward process; by default the model's own.")
@_complete.name_option("operator", "Forward operator A of y = A x + noise.")
@_complete.name_option("conditioner", "How the measurement is used.")
@_complete.name_option("sampler", "How the reverse SDE is integrated.")
@click.option("--set", "settings", metavar="ROLE.KEY=VALUE", multiple=True, help="Any parameter; may be repeated.")
@click.option("--image", metavar="PATH", help="Measure this image (NumPy, picture, HDF5, NIfTI, DICOM).")
@click.option("--measurement", metavar="PATH", help="Reconstruct from this measurement (the same formats).")
@click.option("--samples", type=int, metavar="N", help="Number of posterior samples.")
@click.option("--memory", metavar="SIZE", help="Sample in the largest batches that fit, as in 2GB.")
@click.option("--seed", type=int, metavar="N", help="Of the sampling noise.")
@click.option("--device", metavar="NAME", help="Where the model runs, as torch names it: cpu, cuda, mps.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; by default runs/<time>-<components>.")
@click.option(
    "--executor",
    default="serial",
    show_default=True,
    metavar="NAME",
    help="Where chunks are computed: serial, process:N, dask-local:N, dask:ADDRESS, module:factory.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the run that was stopped in DIR; beside this only --executor can be chosen.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, print config and cost, and sample nothing.")
def run(
    config: Path | None,
    *,
    settings: tuple[str, ...],
    out: Path | None,
    executor: str,
    resume: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Draw posterior samples.

    Without arguments: the demo, sparse-view tomography of a phantom. A CONFIG file replaces the demo's tables, and
    options change what the file says. Naming another component drops the parameters of the one before. A run that was
    stopped, by whatever, keeps its finished chunks; --resume goes on from there.

    \b
    scoreplug run
    scoreplug run --operator inpainting --set operator.mask=random
    scoreplug run --image photo.png --set input.data_range=[0,255]
    scoreplug run --image scan.nii.gz --set input.slice=80 --set input.axis=2 --set input.data_range=[0,1200]
    scoreplug run --measurement y.npy --set input.noise_std=0.05
    scoreplug run config.toml --samples 16 --set sampler.steps=500
    scoreplug run --samples 64 --executor process:4
    scoreplug run --samples 64 --memory 2GB
    scoreplug run --resume runs/20260101-120000-ellipses-64-radon-dps-pc
    """
    with stoppable() as stop, plain_warnings():
        if resume is not None:
            _refuse_other_options()
            _resume(resume, executor, stop)
            return
        resolved, folder = _resolved(config, settings, out, flags)
        if dry_run:
            _rehearse(resolved, folder)
        else:
            _sample(resolved, folder, executor, stop)


command = run


def _resolved(
    config: Path | None, settings: tuple[str, ...], out: Path | None, flags: dict[str, Any]
) -> tuple[RunConfig, Path]:
    from scoreplug.run.config import demo, read
    from scoreplug.run.overrides import layered, overridden
    from scoreplug.run.resolve import resolve
    from scoreplug.run.store import RunFolder

    if out is not None:
        RunFolder(out).check()
    table = layered(demo(), read(config)) if config else demo()
    resolved = resolve(overridden(table, _assignments(flags, settings)))
    return resolved, _default_folder(resolved) if out is None else out


def _refuse_other_options() -> None:
    """A run is resumed as it was begun."""
    context = click.get_current_context()
    given = [
        max(parameter.opts, key=len) if isinstance(parameter, click.Option) else "CONFIG"
        for parameter in context.command.params
        if parameter.name not in ("resume", "executor")
        and context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(
            f"--resume goes on with the run as it was begun, and takes only --executor beside it (got "
            f"{', '.join(given)}); leave out --resume to start another run"
        )


def _resume(path: Path, executor: str, stop: Stop) -> None:
    from scoreplug.run.resume import interrupted

    folder, config = interrupted(path)
    _sample(config, folder.path, executor, stop)


def _assignments(flags: dict[str, Any], settings: tuple[str, ...]) -> list[Assignment]:
    """The options in the form of `--set`."""
    from scoreplug.run.config import ConfigError
    from scoreplug.run.overrides import parse_assignment

    paths = {
        **{role: (role, "name") for role in _COMPONENTS},
        **{key: ("input", key) for key in ("image", "measurement")},
        **{key: (key,) for key in ("samples", "memory", "seed")},
        "device": ("model", "device_name"),
    }
    found: list[Assignment] = [(paths[key], value) for key, value in flags.items() if value is not None]
    problems: list[str] = []
    for text in settings:
        try:
            found.append(parse_assignment(text))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def _sample(config: RunConfig, folder: Path, executor: str, stop: Stop) -> None:
    result = sampled(config, folder, executor, stop)
    _summarize(result, folder)


def sampled(config: RunConfig, folder: Path, executor: str, stop: Stop) -> Result:
    """Carry a run out; what stops it is told in one line."""
    from scoreplug.run.executors import executor_of
    from scoreplug.run.runner import RunError, RunInterruptedError, run
    from scoreplug.run.store import RunFolder

    stop.hint = f"interrupted. If chunks were finished, `{RunFolder(folder).command}` goes on from there"
    with executor_of(executor) as (pool, width):
        try:
            with _progress_bar() as progress:
                return run(config, folder, executor=pool, width=width, progress=progress)
        except RunInterruptedError as error:
            raise stop.tell(str(error)) from error
        except RunError as error:
            if click.get_current_context().find_root().params.get("traceback"):
                raise
            raise click.ClickException(str(error)) from error


def _rehearse(config: RunConfig, folder: Path) -> None:
    from scoreplug.run.fit import fitted
    from scoreplug.run.plan import plan
    from scoreplug.run.provenance import checksums
    from scoreplug.run.rehearse import rehearse
    from scoreplug.run.setup import setup_of
    from scoreplug.run.store import RunFolder

    RunFolder(folder).check()
    files = checksums(config)
    setup, n = setup_of(config.problem, files), config.samples
    cost = rehearse(setup)
    config, fit = fitted(config, files, RunFolder(folder).partial)
    click.echo(config.to_toml())
    click.echo(f"# {n} samples in {len(plan(config, files))} chunks, to {folder}")
    if fit is not None:
        click.echo(f"# batch of {config.batch}: {fit}")
    rows = [
        ("network evaluations", cost.evaluations),
        ("vjps", cost.vjps),
        ("A", cost.forwards),
        ("A^T", cost.adjoints),
    ]
    for name, each in rows:
        click.echo(f"# {name}: {each} per sample, {n * each} in all")


def _summarize(result: Result, folder: Path) -> None:
    metrics, cost = result.metrics, result.cost
    click.echo(f"run directory: {folder}")
    rows = [("posterior mean", metrics["posterior_mean"]), ("average of samples", metrics["average_of_samples"])]
    if result.baseline is not None:
        rows.append((result.baseline.name, metrics["baseline"]))
    click.echo(f"{'':24}{'PSNR (dB)':>10}{'SSIM':>8}{'residual/noise':>16}")
    for name, entry in rows:
        psnr, ssim, residual = (entry[key] for key in ("psnr", "ssim", "residual"))
        click.echo(f"{name:24}{_cell(psnr, 10, 2)}{_cell(ssim, 8, 3)}{_cell(residual, 16, 2)}")
    misfit = metrics["average_of_samples"]["residual"]
    if misfit is not None and misfit > MISFIT:
        click.echo(
            f"warning: the samples miss the measurement by {misfit:.1f} times its noise; take more steps, "
            "or another scale or conditioner",
            err=True,
        )
    click.echo(
        f"{cost['evaluations_per_sample']:.0f} network evaluations and {cost['vjps_per_sample']:.0f} vjps per sample, "
        f"{cost['sampling_seconds']:.1f} s"
    )


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-' if value is None else f'{value:.{digits}f}':>{width}}"


def _default_folder(config: RunConfig) -> Path:
    from datetime import datetime

    names = (config.model, config.operator, config.conditioner, config.sampler)
    # A full id, dist:name, is no name for a folder everywhere, and a distribution may be called as it likes.
    parts = [datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"), *(re.sub(r"[^\w.-]", "_", c.name) for c in names)]
    return Path("runs") / "-".join(parts)


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[float], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sampling"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings in one line each, without the place in the code that issued them."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        del category
        click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield

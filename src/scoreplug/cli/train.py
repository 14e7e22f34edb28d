"""`scoreplug train`"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scoreplug.training import Report, Trainer


@click.command("train")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for checkpoint, log and weights.  [default: the config's name without .toml, here]",
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the folder's checkpoint, if it has one."
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Length in time, instead of the config's; a length in images holds too.",
)
@click.option("--device", metavar="NAME", help="Where to train: cpu, cuda, cuda:1, mps.")
@click.option(
    "--set",
    "assignments",
    metavar="TABLE.KEY=VALUE",
    multiple=True,
    help="Change one value of the config; may be repeated.",
)
def command(
    *,
    config: Path,
    out: Path | None,
    resume: bool,
    minutes: float | None,
    device: str | None,
    assignments: tuple[str, ...],
) -> None:
    """Train a prior by denoising score matching.

    A killed training goes on where it was when the same command is given again. Ctrl-C writes a checkpoint first.

    \b
    scoreplug train ellipses-64.toml --out runs/ellipses
    scoreplug train digits-32.toml --set optimiser.batch=32 --minutes 10
    """
    from scoreplug.run.overrides import overridden, parse_assignment
    from scoreplug.training import WEIGHTS, TrainingConfig, TrainingError, open_training

    table = overridden(TrainingConfig.read_table(config), [parse_assignment(text) for text in assignments])
    folder = Path(config.stem) if out is None else out
    try:
        trainer = open_training(TrainingConfig.from_table(table), folder, resume=resume, minutes=minutes, device=device)
        with _display(trainer) as report, _stop_requested() as stop:
            complete = trainer.fit(report, stop=stop)
    except TrainingError as error:
        raise click.ClickException(str(error)) from error
    if not complete:
        click.echo(f"stopped after {trainer.images} images; the same command goes on from {folder}", err=True)
        raise click.exceptions.Exit(130)
    click.echo(str(folder / WEIGHTS))


@contextlib.contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and a polite kill end the training after the step at hand, so that no step is half done."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        del frame
        if received:  # the second time at once
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _display(trainer: Trainer) -> Iterator[Callable[[Report], None]]:
    """A progress bar on a terminal, plain lines elsewhere; both on standard error."""
    if trainer.images:
        click.echo(f"resumed after {trainer.images} images", err=True)
    if not sys.stderr.isatty():
        yield lambda report: click.echo(_line(report), err=True)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        bar.update(task, completed=trainer.progress)

        def show(report: Report) -> None:
            if report.curve is not None:
                bar.console.print(_line(report))
            else:
                bar.update(task, completed=report.progress, description=_line(report))

        yield show


def _line(report: Report) -> str:
    speed = report.images / report.seconds if report.seconds else 0.0
    start = f"{report.progress:6.1%}  {report.images} images  {speed:.1f}/s"
    if report.curve is None:
        return f"{start}  loss {report.loss:.4f}  rate {report.rate:.2g}"
    points = "  ".join(f"{p.level:g}: {p.rmse:.4f} ({p.linear:.4f})" for p in report.curve)
    return f"{start}  held-out rmse (linear filter) at level  {points}"

"""`scoreplug bench`: methods against problems whose posterior is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoreplug.cli import _complete
from scoreplug.cli._stop import Stop, stoppable
from scoreplug.cli._table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scoreplug.bench.cell import Cell, Row

PAGE = "bench.html"
"""The page's name in the output folder."""


@click.command("bench")
@click.argument("suite", default="quick", metavar="[SUITE]")
@_complete.name_option("problem", "Instead of the suite's problems.", many=True)
@_complete.name_option("conditioner", "Instead of the suite's methods.", many=True)
@_complete.name_option("sampler", "Instead of the suite's methods.", many=True)
@_complete.name_option("sde", "Forward process; by default the problem's own.", many=True)
@click.option(
    "--set",
    "settings",
    metavar="ROLE.KEY=VALUE",
    multiple=True,
    help="A parameter, of every problem, conditioner, sampler or sde that has it; may be repeated.",
)
@click.option(
    "--budget",
    "budgets",
    type=click.IntRange(min=1),
    metavar="N",
    multiple=True,
    help="Network evaluations per sample, for samplers that are given no steps; may be repeated.",
)
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="Number of seeds of each problem.")
@click.option("--n", type=click.IntRange(min=2), metavar="N", help="Samples of each cell.")
@click.option(
    "--executor",
    default="serial",
    show_default=True,
    metavar="NAME",
    help="serial, process:N, dask-local:N, dask:ADDRESS, module:factory.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Output folder.  [default: bench/SUITE]")
@click.option("--retry", is_flag=True, help="Compute again what failed or diverged.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would run, and compute nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array, one object per problem and method.")
@click.option("--reproduce", metavar="KEY", help="Compute one row of DIR again, by the beginning of its key.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-6,
    show_default=True,
    help="Relative difference of a number that --reproduce allows.",
)
def command(
    *,
    suite: str,
    executor: str,
    out: Path | None,
    retry: bool,
    dry_run: bool,
    as_json: bool,
    reproduce: str | None,
    tolerance: float,
    **flags: Any,
) -> None:
    """Measure methods on problems whose posterior is known.

    SUITE is built in (quick, mixture, budgets, gaussian, nonlinear, calibration, images) or a TOML file.
    Options change it. A NAME is a component's, or an inline table with its parameters. The conditioner "oracle" is the
    problem's exact score, the sampler "exact" draws its exact samples. The same command goes on where it was stopped.

    \b
    scoreplug bench
    scoreplug bench mixture --seeds 3 --executor process:4
    scoreplug bench --conditioner dps --conditioner '{name="dps",scale=0.2}' --sampler ancestral --sampler pc
    scoreplug bench --budget 20 --budget 100 --set problem.dimension=80
    scoreplug bench --reproduce 3f9a --out bench/quick
    """
    with stoppable() as stop:
        if reproduce is not None:
            _reproduce(Path("bench", suite) if out is None else out, reproduce, tolerance)
        else:
            _bench(suite, executor, out, stop, retry=retry, dry_run=dry_run, as_json=as_json, flags=flags)


def _bench(
    suite: str,
    executor: str,
    out: Path | None,
    stop: Stop,
    *,
    retry: bool,
    dry_run: bool,
    as_json: bool,
    flags: dict[str, Any],
) -> None:
    from scoreplug.bench.cell import cells
    from scoreplug.bench.check import check
    from scoreplug.bench.flags import changed
    from scoreplug.bench.suite import load, parse

    name, table = load(suite)
    chosen = parse(changed(table, **flags), name=name, source=suite)
    check(chosen)
    found = cells(chosen)
    if dry_run:
        _rehearse(found)
        return
    folder = Path("bench", name) if out is None else out
    stop.hint = f"interrupted. Finished rows are kept; the same command with --out {str(folder)!r} goes on from there"
    _compute(found, folder, name, executor, stop, retry=retry, as_json=as_json)


def _compute(
    cells: Sequence[Cell], out: Path, name: str, executor: str, stop: Stop, *, retry: bool, as_json: bool
) -> None:
    from scoreplug.bench.engine import BenchStoppedError, compute
    from scoreplug.bench.live import display
    from scoreplug.bench.page import page
    from scoreplug.bench.store import RowStore
    from scoreplug.run.executors import executor_of
    from scoreplug.run.store import write_atomic

    store = RowStore(out)
    with executor_of(executor) as (pool, width):
        store.open()
        try:
            with display(len(cells)) as watch:
                rows = compute(cells, store, pool, width=width, retry=retry, watch=watch)
        except BenchStoppedError as error:
            if not error.interrupted:
                raise click.ClickException(str(error)) from error
            raise stop.tell(str(error)) from error
    everything = store.merge(rows)
    write_atomic(out / PAGE, page(everything, title=f"scoreplug bench {name}").encode())
    _show(rows, as_json=as_json)
    if not as_json:
        click.echo(f"{len(rows)} cells; page, rows.jsonl and rows.csv in {out}")
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        raise click.ClickException(f"{failed} cells failed; {out / PAGE} says how, and --retry computes them again")


def _show(rows: Sequence[Row], *, as_json: bool) -> None:
    from scoreplug.bench.table import SHORT, best, by_problem, summaries, table

    found = summaries(rows)
    if as_json:
        import json

        import attrs

        from scoreplug.bench.cell import finite

        click.echo(json.dumps([finite(attrs.asdict(summary)) for summary in found], indent=2))
        return
    winners = dict[str, list[tuple[int, Any]]]()
    for problem, budget, summary in best(found):
        winners.setdefault(problem, []).append((budget, summary))
    for problem, of_problem in by_problem(found).items():
        criterion = next((summary.criterion for summary in of_problem if summary.criterion), "")
        click.echo(f"{problem}: {criterion.replace('_', ' ') or 'nothing finished'}")
        print_table(*table(of_problem, SHORT))
        for budget, summary in winners.get(problem, ()):
            click.echo(f"best within {budget} evaluations: {summary.method}, {summary.error}")
        click.echo("")
    for summary in found:
        for reason in summary.reasons:
            click.echo(f"{summary.problem}: {summary.method}: {reason}", err=True)


def _rehearse(cells: Sequence[Cell]) -> None:
    from scoreplug.bench.cell import refusal

    refused = {(cell.problem_label, cell.method_label): reason for cell in cells if (reason := refusal(cell))}
    pairs = dict.fromkeys((cell.problem_label, cell.method_label) for cell in cells)
    print_table(("problem", "method", "refused"), [(*pair, refused.get(pair, "")) for pair in pairs])
    click.echo(f"{len(cells)} cells")


def _reproduce(path: Path, key: str, tolerance: float) -> None:
    from scoreplug.bench.engine import differences
    from scoreplug.bench.execute import execute
    from scoreplug.bench.live import line
    from scoreplug.bench.store import find_row

    before = find_row(path, key)
    after = execute(before.cell)
    click.echo(line(after))
    found = differences(before, after, tolerance)
    if not found:
        click.echo(f"reproduced: every number agrees within {tolerance:g} of its size")
        return
    print_table(("number", "stored", "now"), found)
    raise click.ClickException(f"{len(found)} numbers differ by more than {tolerance:g} of their size")

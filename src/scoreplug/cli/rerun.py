"""`scoreplug rerun`: a run directory once more, and where the two differ."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoreplug.cli._stop import Stop, stoppable
from scoreplug.cli._table import print_table

if TYPE_CHECKING:
    from scoreplug.run.compare import Comparison

_NEEDED = ("config.toml", "arrays.npz")


@click.command("rerun")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--executor",
    default="serial",
    show_default=True,
    metavar="NAME",
    help="Where chunks are computed: serial, process:N, dask-local:N, dask:ADDRESS, module:factory.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Keep the second run directory here.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-6,
    show_default=True,
    help="Difference that is allowed, in units of an array's largest value; 0 means to the bit.",
)
def command(*, folder: Path, executor: str, out: Path | None, tolerance: float) -> None:
    """Compute a run directory again, and say where it differs.

    The same config gives the same arrays, to the bit on one machine. Where they differ, what else differs is told:
    versions, machine, input files. The exit code is 0 if every array agrees within --tolerance, and 1 if not.

    \b
    scoreplug rerun runs/20260101-120000-ellipses-64-radon-dps-pc
    scoreplug rerun out --executor process:2 --tolerance 0
    """
    with stoppable() as stop:
        _rerun(folder, executor, out, tolerance, stop)


def _rerun(folder: Path, executor: str, out: Path | None, tolerance: float, stop: Stop) -> None:
    from scoreplug.cli.run import plain_warnings, sampled
    from scoreplug.run.compare import circumstances, compare, read_arrays
    from scoreplug.run.config import read
    from scoreplug.run.resolve import resolve
    from scoreplug.run.store import RunFolder

    _verify(folder)
    before = read_arrays(folder)
    config = resolve(read(folder / "config.toml"))
    if out is not None:
        RunFolder(out).check()
    with plain_warnings(), _place(out) as second:
        result = sampled(config, second, executor, stop)
        after = read_arrays(second)
    found = compare(before, after)
    if all(comparison.differing == 0 and not comparison.note for comparison in found):
        click.echo(f"reproduced: {len(found)} arrays are the same to the bit")
        return
    print_table(("array", "values", "differ", "largest", "first"), [_row(comparison) for comparison in found])
    other = list(circumstances(_provenance(folder), json.loads(json.dumps(result.provenance))))
    click.echo(
        "what else differs: " + ("nothing that is recorded" if not other else "".join(f"\n  {o}" for o in other))
    )
    wrong = [comparison.name for comparison in found if not comparison.within(tolerance)]
    if wrong:
        raise click.ClickException(
            f"{', '.join(wrong)} differ by more than {tolerance:g} of their largest value (--tolerance)"
        )
    click.echo(f"reproduced within {tolerance:g} of the largest value of each array")


def _verify(folder: Path) -> None:
    """Refuse a folder that is no complete run, or whose files are not what was written."""
    from scoreplug.run.store import SUMS, RunFolder, damaged

    if not folder.is_dir() or folder.name.endswith(".partial"):
        unfinished = RunFolder(folder.with_name(folder.name.removesuffix(".partial")) if folder.name else folder)
        more = f"; `{unfinished.command}` completes the run there" if unfinished.partial.is_dir() else ""
        raise FileNotFoundError(f"{str(folder)!r} is no complete run directory{more}")
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{str(folder)!r} is no complete run directory: it has no {' and no '.join(missing)}")
    broken = damaged(folder)
    fatal = [name for name in broken if name in _NEEDED]
    if fatal:
        told = ", ".join(f"{str(folder / name)!r} is damaged ({broken[name]})" for name in fatal)
        raise ValueError(
            f"{told}; there is nothing to compare with. `scoreplug run CONFIG --out NEW` computes the run anew"
        )
    for name, why in broken.items():
        doubt = "; its files are taken as they are" if name == SUMS else ""
        click.echo(f"warning: {str(folder / name)!r} is damaged or missing ({why}){doubt}", err=True)


@contextlib.contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    folder = Path(tempfile.mkdtemp(prefix="scoreplug-rerun-"))
    try:
        yield folder / "run"
        shutil.rmtree(folder)
    finally:
        with contextlib.suppress(OSError):  # a run that stopped on the way keeps what was finished, and has said so
            folder.rmdir()


def _row(comparison: Comparison) -> tuple[str, ...]:
    if comparison.note:
        return comparison.name, "-", "-", "-", comparison.note
    place = "" if comparison.first is None else _where(comparison.name, comparison.first)
    return comparison.name, str(comparison.values), str(comparison.differing), f"{comparison.largest:.3g}", place


def _where(name: str, index: tuple[int, ...]) -> str:
    if name == "samples":
        return f"sample {index[0]}, at {index[1:]}"
    return f"at {index}"


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "provenance.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

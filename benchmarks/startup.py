"""What installed plugins cost at start-up: CPU time of `scoreplug list` with none and with fifteen of them.

    python benchmarks/startup.py [--runs 20] [--plugins 15] [--out docs]

Each plugin is a distribution of its own, with a package, metadata and four components, in a folder on PYTHONPATH.
The commands run in turn, so that other load on the machine falls on all alike; the figures are medians of user plus
system time of one process. The bare libraries are what no command line of this kind can do without.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGIN = """
from scoreplug import ConditionerSpec, OperatorSpec, SamplerSpec, hookimpl

@hookimpl
def scoreplug_components():
    yield SamplerSpec(name="sampler-{n}", summary="s", factory="bench_{n}.methods:S", references=("arXiv:2101.{n:05}",))
    yield SamplerSpec(name="other-{n}", summary="s", factory="bench_{n}.methods:T", needs=("log-density",))
    yield ConditionerSpec(name="conditioner-{n}", summary="s", factory="bench_{n}.methods:C", needs=("linear", "svd"))
    yield OperatorSpec(name="operator-{n}", summary="s", factory="bench_{n}.methods:A", provides=("linear",))
"""


def install(folder: Path, n: int) -> None:
    package = folder / f"bench_{n}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(PLUGIN.format(n=n))
    info = folder / f"bench_{n}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: bench-{n}\nVersion: 1.0\nRequires-Dist: scoreplug>=0.1\n")
    (info / "entry_points.txt").write_text(f"[scoreplug]\nit = bench_{n}.plugin\n")


def cpu_seconds(code: str, path: str) -> float:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE" and not k.startswith("SCOREPLUG_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=env | {"PYTHONPATH": path})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(runs: int, plugins: int) -> dict[str, object]:
    libraries = "import click, pluggy, attrs"
    listing = "from scoreplug.cli import main; main(['list'], prog_name='scoreplug')"
    with tempfile.TemporaryDirectory() as folder:
        for n in range(plugins):
            install(Path(folder), n)
        with_plugins = f"list with {plugins} plugins"
        commands = {"libraries": (libraries, ""), "list": (listing, ""), with_plugins: (listing, folder)}
        for code, path in commands.values():
            cpu_seconds(code, path)  # writes the bytecode, as an installer does
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                times[name].append(cpu_seconds(*command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "python": platform.python_version(),
        "runs": runs,
        "milliseconds": {name: round(1e3 * value, 1) for name, value in medians.items()},
        "ratios": {
            "list / libraries": round(medians["list"] / medians["libraries"], 2),
            f"{with_plugins} / list": round(medians[with_plugins] / medians["list"], 2),
            f"{with_plugins} / libraries": round(medians[with_plugins] / medians["libraries"], 2),
        },
    }


def page(found: dict[str, object]) -> str:
    rows = [f"| {name} | {value} ms |" for name, value in found["milliseconds"].items()]  # type: ignore[attr-defined]
    ratios = [f"| {name} | {value} |" for name, value in found["ratios"].items()]  # type: ignore[attr-defined]
    head = [
        "# Start-up",
        "",
        "CPU time (user and system) of one process, median. `libraries` is `import click, pluggy, attrs`.",
        "Made by `python benchmarks/startup.py`; "
        f"Python {found['python']}, {found['runs']} runs each, the commands in turn.",
        "",
    ]
    table = ["| command | CPU time |", "|---|---|", *rows, "", "| ratio | |", "|---|---|", *ratios, ""]
    return "\n".join([*head, *table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--plugins", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder for startup.json and startup.md")
    args = parser.parse_args()
    found = measure(args.runs, args.plugins)
    print(page(found))
    if args.out is not None:
        (args.out / "startup.json").write_text(json.dumps(found, indent=2) + "\n")
        (args.out / "startup.md").write_text(page(found))


if __name__ == "__main__":
    main()

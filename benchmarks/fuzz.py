"""Hostile input: 100,000 cases, each of which is read or refused in one line.

Each target of `tests/fuzz/targets.py` runs in a process of its own, with an empty folder as home and working directory
and with bounded memory: a crash is a finding, too. What hypothesis draws depends on `--seed` alone. With `--atheris N`
the pure parsers also run N cases each under coverage guidance (pip install atheris).

python benchmarks/fuzz.py --out docs/fuzzing.json
python benchmarks/fuzz.py --target npy --cases 20000 --seed 7
python benchmarks/fuzz.py --render docs/fuzzing.json --out docs/fuzzing.md
"""

import argparse
import atexit
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HEAD = """# Hostile input

A config, a checkpoint, a measurement or a plugin may come from anybody. What is promised of all of them: they are read,
or refused in a few lines that print, are short and name the file or the key; no traceback, no hang, no memory beyond a
declared limit, no file outside the run folder, and no code of theirs runs.

## What was tried

{total:,} cases under [hypothesis](https://hypothesis.readthedocs.io), seed {seed}: valid files of each format
with up to four changes to their bytes (bits, numbers of headers set to extremes, cuts, splices, growth), valid tables
with up to three values of another type, size or depth, and text of all kinds. Each target runs in a process of its own
with an empty home and bounded memory, so that a crash counts, too. A case that takes {seconds:.0f} s of the
processor counts as a hang. {findings} Measured by `benchmarks/fuzz.py` with {versions}.

| entrance | cases | findings | CPU seconds | peak memory (MiB) | what means "bad input" |
|---|---|---|---|---|---|
"""

COVERAGE = """
Under [atheris](https://github.com/google/atheris), which follows the branches that are taken, the parsers that are
Python:

| entrance | cases | findings |
|---|---|---|
"""

TAIL = """
## What is refused on purpose

Each of these has a test of its own in `tests/fuzz/test_attacks.py`.

* **Code.** Pickles that call anything, in all the wrappings that `torch.save` has used, and arrays of objects.
* **Size.** What declares more than {largest:.0f} GiB is refused before it is decoded (`scoreplug.data.files.LARGEST`),
  and a slice of what has to be unpacked as a whole counts as the whole. A TOML file has at most {toml} KiB, a key or
  value lies at most {deepest} deep, and an integer has 64 bits. A checkpoint whose members are compressed, or overlap,
  or whose tensors are larger than what is stored of them, is refused.
* **Paths.** No name in an archive is a path. HDF5 follows no external link, no virtual dataset and no external storage.
  Names of components with separators are unknown names. Pipes, sockets and devices are no files.
* **Programs.** A picture is PNG, JPEG or BMP by its content: Pillow would run ghostscript on PostScript called `.png`.
* **The terminal.** What comes from outside is printed with escapes for all that does not print.

## What fuzzing and these attacks found

All of it is mended, and each has its test.

{found}
## What is not promised

* A `.pt` file can waste time (a dictionary whose key is a tuple of tuples takes long to hash) before it is refused;
  safetensors files cannot.
* HDF5, JPEG and zlib are read by libraries in C. No case here made one crash; what they can do is theirs to say.
* A plugin is code. Its metadata cannot do harm; its module can do what you can.

## Again

```bash
python benchmarks/fuzz.py --out docs/fuzzing.json                    # all of it
python benchmarks/fuzz.py --target npy --cases 20000 --seed 7        # one entrance, other cases
python benchmarks/fuzz.py --covered npy --cases 100000               # under atheris
SCOREPLUG_FUZZ_CASES=2000 pytest tests/fuzz                          # more of what the tests do
```
"""

FOUND = (
    "Pages of a TIFF file that follow each other in a circle were followed 2^32 times.",
    "A dotted key of a thousand parts in TOML, or `--set` with one, took time that grows as its square; lists and "
    "tables 10,000 deep came out as a RecursionError.",
    "Integers of thousands of digits (hexadecimal in TOML, shapes of `.npy`) broke the message that named them.",
    "A date in a table of a component, and half a character in the metadata of a checkpoint, failed later, as JSON.",
    "A pipe in the place of a config, a checkpoint, a mask or plugin metadata hung; `/dev/zero` filled the memory.",
    "A `.png` that is PostScript was handed to Pillow's readers of all formats, one of which starts a program.",
    "HDF5 datasets with external storage, or virtual ones, were read from the files that they name, `/etc/passwd` too.",
    "A slice of a compressed `.npz`, a TIFF or a DICOM of many frames was counted as a slice, and decoded as a whole.",
    "The header of an `.npy` in an `.npz` was unpacked to the length that it declares before its limit was looked at.",
    "A `.nii.gz` that begins at byte 10^15 was unpacked to there.",
    "A compressed checkpoint, or a tensor with stride 0 and 10^12 entries, passed as a small file.",
    "A checkpoint whose names are no strings, or whose tensors are sparse or quantized, passed as a state dict.",
    "A mask, kernel or matrix that is a damaged `.npz` came out as `BadZipFile`.",
    "A suite with 2^31 seeds, or lists with 10^7 combinations, and a run of 10^15 samples filled the memory.",
    "Rows of a benchmark with a list where a table belongs came out as AttributeError; a file that is no text did not "
    "name itself.",
    "Long and unprintable names came back whole in messages; summaries, errors and names of plugins could control the "
    "terminal, and an origin's URL could add a line to `plugins --requirements`.",
    "The name of a plugin with separators could place the run folder elsewhere; `--out` with a NUL character, or "
    "ending in `..`, was refused late.",
)

REFUSALS = {
    "npy npz png jpg bmp tif h5 nii nii.gz dcm": "DataError",
    "safetensors safetensors-model safetensors-header pt pt-legacy": "CheckpointError",
    "config resolve set suite": "ConfigError",
    "training": "ParameterError",
    "plugins.toml rows": "ValueError",
    "environment": "ValueError, FileNotFoundError",
    "plugin-specs": "ValueError, TypeError",
    "plugin-metadata": "none: it is shown, or left out",
    "cli": "exit code 1 or 2",
}

FUZZ = Path(__file__).parents[1] / "tests" / "fuzz"
MEMORY = 12 * 2**30
CASES = {"cli": 300, "plugin-metadata": 1000}
"""Cases of the targets that are slow; the others share the rest of `--cases`."""

_PACKAGES = (
    "scoreplug", "hypothesis", "numpy", "torch", "safetensors", "h5py", "nibabel", "pydicom", "pillow", "tifffile"
)  # fmt: skip

COVERED = ("set", "config", "safetensors-model", "npy")


def run_target(name, cases, seed):
    """Cases and findings of one target, in this process."""
    sys.path.insert(0, str(FUZZ))
    import targets as fuzz
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    target = fuzz.targets()[name]
    findings, examples, outcomes = Counter(), {}, Counter()
    began, busy = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as outside, fuzz.sandbox(Path(outside)) as folder:
        before = fuzz.tree(Path(outside))

        def one(case):
            outcomes["cases"] += 1
            with fuzz.quiet():
                found = fuzz.finding_of(target, case, folder)
            if found is None and fuzz.tree(Path(outside)) != before:
                found = f"files are left: {sorted(set(fuzz.tree(Path(outside))) - set(before))[:3]}"
            if found is not None:
                kind = found[:60]
                findings[kind] += 1
                examples.setdefault(kind, {"what": found[:1000], "case": repr(case)[:2000]})

        rounds = -(-cases // 5000)  # hypothesis remembers what it has drawn, and slows down
        for i in range(rounds):
            share = cases // rounds + (i < cases % rounds)
            drawn = settings(
                max_examples=share,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(target.cases)(one))
            seeded(1000 * seed + i)(drawn)()
        written = set(fuzz.tree(Path(outside))) - set(before)
    return {
        "cases": outcomes["cases"],
        "findings": sum(findings.values()),
        "examples": list(examples.values()),
        "left": sorted(written),
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - busy,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def run_covered(name, cases, seed):
    """The same under atheris, which follows the branches of the parsers. It ends the process itself."""
    sys.path.insert(0, str(FUZZ))
    import atheris

    with atheris.instrument_imports(include=["scoreplug", "tomllib", "numpy.lib.format", "numpy.lib._format_impl"]):
        import targets as fuzz

        target = fuzz.targets()[name]
        import tomllib  # noqa: F401

        import scoreplug.checkpoint
        import scoreplug.data.files
        import scoreplug.run.overrides  # noqa: F401

    found = []
    scratch = tempfile.mkdtemp()
    corpus = Path(scratch, "corpus")
    corpus.mkdir()
    if name != "set":
        from hypothesis import HealthCheck, Phase, given, settings

        @settings(
            max_examples=50,
            database=None,
            phases=[Phase.generate],
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(target.cases)
        def keep(case):
            (corpus / f"{len(list(corpus.iterdir()))}").write_bytes(case)

        keep()
    else:
        for i, text in enumerate(["sampler.steps=100", "operator.mask='a'", "a.b=[1, 2]", "a={b=1}", "a=2020-01-01"]):
            (corpus / str(i)).write_text(text)
    folder = Path(scratch, "sandbox")
    folder.mkdir()
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)

    def one(content):
        case = [content.decode("utf-8", "replace")] if name == "set" else content
        problem = fuzz.finding_of(target, case, folder)
        if problem is not None:
            found.append(problem)
            print(json.dumps({"finding": problem, "case": repr(content)[:500]}), flush=True)

    options = [
        f"-runs={cases}",
        f"-seed={seed + 1}",
        "-max_len=4096",
        "-timeout=20",
        "-rss_limit_mb=8000",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def in_process(arguments, seconds=1800):
    """Run this script for one target, so that a crash is seen."""
    command = [sys.executable, __file__, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
    return ended, time.monotonic() - began


def measure(cases, seed, covered, out):
    from importlib.metadata import version

    sys.path.insert(0, str(FUZZ))
    import targets as fuzz

    names = list(fuzz.targets())
    rest = cases - sum(CASES.values())
    shares = {name: CASES.get(name, -(-rest // (len(names) - len(CASES)))) for name in names}
    result = {
        "seed": seed,
        "targets": {},
        "covered": {},
        "versions": {name: version(name) for name in _PACKAGES},
        "machine": platform.machine(),
    }
    for name in names:
        ended, seconds = in_process(["--target", name, "--cases", str(shares[name]), "--seed", str(seed)])
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["?"])[-1][:500]
            row = {"cases": 0, "findings": 1, "seconds": seconds, "cpu": 0.0, "peak": 0, "left": []}
            row["examples"] = [{"what": f"the process ended with {ended.returncode}: {last}", "case": ""}]
        else:
            row = json.loads(ended.stdout.splitlines()[-1])
        result["targets"][name] = row
        print(f"{name:20} {row['cases']:7} cases  {row['findings']:4} findings  {row['seconds']:7.1f} s", flush=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
    for name in COVERED if covered else ():
        ended, seconds = in_process(["--covered", name, "--cases", str(covered), "--seed", str(seed)])
        found = [line for line in ended.stdout.splitlines() if line.startswith('{"finding"')]
        row = {"cases": covered, "findings": len(found) + bool(ended.returncode), "seconds": seconds}
        row["examples"] = [json.loads(line) for line in found[:3]]
        if ended.returncode:
            row["examples"].append({"finding": ended.stderr[-500:]})
        result["covered"][name] = row
        print(f"{name:20} {covered:7} covered  {row['findings']:4} findings  {seconds:7.1f} s", flush=True)
        out.write_text(json.dumps(result, indent=1) + "\n")


def render(result):
    from scoreplug.data.files import LARGEST
    from scoreplug.foreign import DEEPEST, TOML

    sys.path.insert(0, str(FUZZ))
    import targets as fuzz

    rows, covered = result["targets"], result["covered"]
    count = sum(row["findings"] for row in (*rows.values(), *covered.values()))
    refusals = {name: words for names, words in REFUSALS.items() for name in names.split()}
    text = HEAD.format(
        total=sum(row["cases"] for row in rows.values()),
        seed=result["seed"],
        seconds=fuzz.SECONDS,
        findings="Nothing was found." if not count else f"Findings: {count}.",
        versions=", ".join(f"{name} {number}" for name, number in result["versions"].items()),
    )
    for name, row in rows.items():
        text += (
            f"| {name} | {row['cases']:,} | {row['findings']} | {row['cpu']:.0f} | {row['peak'] / 2**20:.0f} "
            f"| {refusals[name]} |\n"
        )
    if covered:
        text += COVERAGE
        for name, row in covered.items():
            text += f"| {name} | {row['cases']:,} | {row['findings']} |\n"
    found = "".join(f"* {line}\n" for line in FOUND)
    return text + TAIL.format(largest=LARGEST / 2**30, toml=TOML // 2**10, deepest=DEEPEST, found=found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", metavar="NAME", help="only this one, in this process")
    parser.add_argument("--covered", metavar="NAME", help="only this one, under atheris, in this process")
    parser.add_argument("--atheris", type=int, default=0, metavar="N", help="cases of each pure parser under atheris")
    options = parser.parse_args()
    if options.target:
        print(json.dumps(run_target(options.target, options.cases, options.seed)))
    elif options.covered:
        run_covered(options.covered, options.cases, options.seed)
    elif options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
    else:
        measure(options.cases, options.seed, options.atheris, options.out)


if __name__ == "__main__":
    main()

"""Runs that are killed at random moments: what is lost, and how long Ctrl-C takes.

A run of eight chunks is killed (SIGKILL) by its main process, one of its workers, or the scheduler of its cluster, at
moments that are uniform over the time that an undisturbed run takes, or over its chunks. It is resumed by
`scoreplug run --resume`, and its arrays are compared with the undisturbed run's, to the bit. This process has imported
everything; every trial is a fork of it that calls the command line. `--only` takes some of the kinds.

python benchmarks/kills.py --out docs/kills.json
python benchmarks/kills.py --render docs/kills.json --out docs/kills.md
"""

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, which then starts no threads that a fork would lose

CONFIG = """
samples = 8
batch = 1
operator = "inpainting"
conditioner = "dps"
model = {name = "gaussian", image_shape = [1, 16, 16], covariance = 0.1}
sampler = {name = "pc", steps = 20}
input = {source = "ellipses", noise_std = 0.1}
"""

KILLS = {
    "main process, serial": "serial",
    "main process, process:2": "process:2",
    "a worker of process:2": "process:2",
    "a worker of dask:ADDRESS": "dask",
    "the scheduler of dask:ADDRESS": "dask",
}
INTERRUPTS = ("serial", "process:2", "dask-local:2")

HEAD = """# Runs that are killed

A run of {chunks} chunks is killed at a random moment: its main process, one of its workers, or the scheduler of its
cluster gets SIGKILL. Then `scoreplug run --resume` goes on, or the command is given again where nothing had begun. The
moments of half of the trials are uniform over the time that an undisturbed run takes with that executor, start and
writing included, so that some come before anything is computed and some after the end; those of the others come within
0.1 s after a random number of chunks is finished.

*Stopped*: trials in which the run ended incomplete; the others were done by then, or went on with the workers that
were left. *Equal*: the arrays are those of the undisturbed run, to the bit. *Recomputed*: chunks that were finished
when the run stopped, and were not taken up. *Unreadable*: files under their own names that are not what their checksums
say. *Half-written*: temporary files that a kill left behind; nothing reads them, and resuming sweeps them away.
*Orphans*: worker processes that are still there two seconds after their main process was killed.

| killed | trials | stopped | equal | recomputed | unreadable | half-written | orphans | finished chunks at the stop |
|---|---|---|---|---|---|---|---|---|
"""

INTERRUPTED = """
## Ctrl-C

SIGINT to the whole process group, as a terminal sends it, at random moments of the sampling and of the start before it.
Seconds from the signal to the end of the process; *resumable*: the folder is gone because nothing was finished, or
`--resume` takes it up.

| executor | trials | median | quartiles | longest | exit code 130 | one line | resumable | left processes |
|---|---|---|---|---|---|---|---|---|
"""

TAIL = """
Measured by `benchmarks/kills.py` with {versions}, Python {python}, {machine}; an undisturbed run took {seconds}.
"""


def call(arguments, log):
    """`scoreplug ARGUMENTS` in a fork of this process, as the leader of a session; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        from scoreplug.cli import main

        main(arguments, prog_name="scoreplug")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:  # noqa: BLE001  the log says what it was
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def ended(pid, seconds=120.0):
    """The exit code of a child; negative for a signal. One that does not end in time is an error."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise RuntimeError("a run did not end")


def processes(session):
    """Processes of a session that are alive, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            state, _, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def workers(main):
    return [p for p, line in processes(main).items() if p != main and "spawn_main" in line]


class Cluster:
    """A dask scheduler and two workers, each a fork of this process."""

    def __init__(self, folder):
        self.folder, self.scheduler, self.workers = folder, None, []

    def ready(self):
        """All three are there; those that were killed are started again."""
        if self.scheduler is None:
            reader, writer = os.pipe()
            self.scheduler = self.fork(self.schedule, writer)
            os.close(writer)
            self.address = os.read(reader, 100).decode()
            os.close(reader)
        while len(self.workers) < 2:
            self.workers.append(self.fork(self.work))
        return self.address

    def fork(self, function, *arguments):
        pid = os.fork()
        if pid:
            return pid
        try:
            import asyncio

            os.setsid()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            asyncio.run(function(*arguments))
        finally:
            os._exit(0)

    async def schedule(self, writer):
        from distributed import Scheduler

        async with Scheduler(port=0, dashboard=False, host="127.0.0.1") as scheduler:
            os.write(writer, scheduler.address.encode())
            await scheduler.finished()

    async def work(self):
        from distributed import Worker

        async with Worker(self.address, nthreads=1, local_directory=str(self.folder), dashboard=False) as worker:
            await worker.finished()

    def kill_worker(self):
        self.end(self.workers.pop(random.randrange(2)))

    def kill_scheduler(self):
        self.end(self.scheduler)
        self.scheduler = None
        while self.workers:  # they look for it; the next cluster has its own
            self.end(self.workers.pop())

    def end(self, pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def close(self):
        if self.scheduler is not None:
            self.kill_scheduler()


class Trials:
    """Everything in one folder; `seconds` holds the time of an undisturbed run with each executor."""

    def __init__(self, folder):
        self.folder, self.config = folder, folder / "config.toml"
        self.config.write_text(CONFIG)
        self.out, self.log = folder / "out", folder / "log"
        self.cluster = Cluster(folder)
        self.seconds, self.arrays, self.count = {}, None, 0

    def executor(self, name):
        return f"dask:{self.cluster.ready()}" if name == "dask" else name

    def start(self, executor):
        return call(["run", str(self.config), "--out", str(self.out), "--executor", executor], self.log)

    def undisturbed(self, name):
        """Once per executor: how long it takes, and what it gives."""
        if name not in self.seconds:
            executor = self.executor(name)
            for _ in range(2 if name == "dask" else 1):  # the first run finds workers that have built nothing yet
                self.clear()
                began = time.monotonic()
                assert ended(self.start(executor)) == 0, self.log.read_text()
                self.seconds[name] = time.monotonic() - began
            found = self.read()
            self.arrays = self.arrays or found
            assert same(found, self.arrays), f"{name} gives other arrays than serial"
        return self.seconds[name]

    def read(self):
        from scoreplug.run.compare import read_arrays

        return read_arrays(self.out)

    def clear(self):
        import shutil

        for path in (self.out, self.out.with_name("out.partial")):
            shutil.rmtree(path, ignore_errors=True)

    def kill(self, kind):
        """One trial: kill, look, resume, compare."""
        name = KILLS[kind]
        whole, executor = self.undisturbed(name), self.executor(name)
        self.clear()
        main, began = self.start(executor), time.monotonic()
        self.wait(whole)
        share, family = (time.monotonic() - began) / whole, workers(main)
        if kind.startswith("main"):
            os.kill(main, signal.SIGKILL)
        elif kind == "a worker of process:2":
            if family:
                os.kill(random.choice(family), signal.SIGKILL)
        elif "worker" in kind:
            self.cluster.kill_worker()
        else:
            self.cluster.kill_scheduler()
        code = ended(main)
        trial = {"kind": kind, "share": share, "code": code, **self.look(), "orphans": self.orphans(main)}
        return trial | self.resume(trial["finished"], code)

    def wait(self, whole):
        """Up to a moment of the whole time, or, every other time, to one between two chunks."""
        self.count += 1
        if self.count % 2:
            time.sleep(random.random() * whole)
            return
        chunks, until = random.randrange(8), time.monotonic() + 2 * whole
        folder = self.out.with_name("out.partial") / "chunks"
        while len(list(folder.glob("*.json"))) < chunks and not self.out.exists() and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(random.random() * 0.1)

    def look(self):
        """What is there after the stop."""
        from scoreplug.run.store import ChunkStore, damaged

        partial = self.out.with_name("out.partial")
        if not partial.exists():
            return {"complete": self.out.exists(), "finished": 0, "unreadable": 0, "half": 0}
        store, records = ChunkStore(partial / "chunks"), list((partial / "chunks").glob("*.json"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finished = [record for record in records if store.load(record.stem) is not None]
        wrong = [name for name in damaged(partial) if (partial / name).exists()]
        return {
            "complete": False,
            "finished": len(finished),
            "unreadable": len(records) - len(finished) + len(wrong),
            "half": len(list(partial.rglob(".*"))),
        }

    def orphans(self, main):
        until = time.monotonic() + 2
        while (left := processes(main)) and time.monotonic() < until:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return len(left)

    def resume(self, finished, code):
        anew = False
        if not (self.out / "SHA256SUMS").exists():
            again = ended(call(["run", "--resume", str(self.out)], self.log))
            anew = again == 2 and not finished  # nothing had begun
            if anew:
                again = ended(self.start("serial"))
            assert again == 0, self.log.read_text()
            reused = json.loads((self.out / "cost.json").read_text())["chunks_reused"]
        else:
            reused = finished
        swept = sorted(path.name for path in self.folder.iterdir() if path.name.startswith("out")) == ["out"]
        chunks = (self.out / "chunks").exists() and code == 0
        return {
            "anew": anew,
            "recomputed": finished - reused,
            "equal": same(self.read(), self.arrays) and swept and not chunks,
        }

    def interrupt(self, executor):
        """One Ctrl-C: how long it takes, and what is left."""
        from scoreplug.run.resume import interrupted

        whole = self.undisturbed(executor)
        while True:
            self.clear()
            share = random.uniform(0.05, 0.9)
            main = self.start(executor)
            time.sleep(share * whole)
            family, began = processes(main), time.monotonic()
            os.killpg(main, signal.SIGINT)
            code = ended(main)
            seconds = time.monotonic() - began
            if code != 0:  # else it was faster than an undisturbed run, and done
                break
        left = self.orphans(main)
        text, partial = self.log.read_text(), self.out.with_name("out.partial")
        resumable = not partial.exists()
        if any((partial / "chunks").glob("*.json")):
            interrupted(self.out)  # raises if not
            resumable = "--resume" in text
        lines = text.strip().splitlines()
        return {
            "kind": executor,
            "share": share,
            "seconds": seconds,
            "code": code,
            "processes": len(family),
            "one_line": len(lines) == 1 and lines[0].startswith("interrupted"),
            "resumable": resumable,
            "left": left,
            **({} if len(lines) == 1 else {"log": text}),
        }


def same(one, other):
    return set(one) == set(other) and all(
        one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes() for key in one
    )


def measure(out, kills, interrupts, only):
    import distributed  # noqa: F401  imported here, and there in every fork
    import matplotlib.pyplot  # noqa: F401
    import torch

    import scoreplug.cli.run
    import scoreplug.run.executors
    import scoreplug.run.resolve
    import scoreplug.run.resume
    import scoreplug.run.runner  # noqa: F401
    from scoreplug.run import executors

    torch.set_num_threads(1)
    warm()
    executors.ANSWER_SECONDS = 2.0  # a scheduler that was killed is given up sooner
    random.seed(0)
    result = {"chunks": 8, "kills": [], "interrupts": [], "seconds": {}, **surroundings()}
    wanted = [kind for kind in (*KILLS, *INTERRUPTS) if not only or any(word in kind for word in only)]
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder))
        try:
            trials.undisturbed("serial")
            for name, count in (("kills", kills), ("interrupts", interrupts)):
                of, one = (KILLS, trials.kill) if name == "kills" else (INTERRUPTS, trials.interrupt)
                for kind in [kind for kind in of if kind in wanted]:
                    for _ in range(-(-count // 2) if kind.startswith("main") else count):  # two kinds share them
                        result[name].append(one(kind))
                        result["seconds"] = trials.seconds
                        out.write_text(json.dumps(result, indent=1) + "\n")
        finally:
            trials.cluster.close()


def warm():
    """One run here, so that whatever is imported on the way is imported; what it built is forgotten."""
    import tomllib

    from scoreplug.run.resolve import resolve
    from scoreplug.run.runner import run
    from scoreplug.run.setup import forget

    with tempfile.TemporaryDirectory() as folder:
        run(resolve(tomllib.loads(CONFIG)), Path(folder) / "run")
    forget()


def surroundings():
    from importlib.metadata import version

    names = ("scoreplug", "torch", "distributed")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"versions": {n: version(n) for n in names}, "python": platform.python_version(), "machine": machine}


def render(result):
    text = HEAD.format(**result)
    for kind in dict.fromkeys(trial["kind"] for trial in result["kills"]):
        of = [trial for trial in result["kills"] if trial["kind"] == kind]
        middle = [trial for trial in of if not trial["complete"]]
        counts = sorted(trial["finished"] for trial in middle) or [0]
        total = {
            key: sum(trial[key] for trial in of) for key in ("equal", "recomputed", "unreadable", "half", "orphans")
        }
        text += (
            f"| {kind} | {len(of)} | {len(middle)} | {total['equal']} | {total['recomputed']} | {total['unreadable']} "
            f"| {total['half']} | {total['orphans']} | {counts[0]} to {counts[-1]}, "
            f"median {statistics.median(counts):g} |\n"
        )
    if result["interrupts"]:
        text += INTERRUPTED
    for kind in dict.fromkeys(trial["kind"] for trial in result["interrupts"]):
        of = [trial for trial in result["interrupts"] if trial["kind"] == kind]
        times = sorted(trial["seconds"] for trial in of)
        low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        total = {key: sum(trial[key] for trial in of) for key in ("one_line", "resumable", "left")}
        text += (
            f"| {kind} | {len(of)} | {middle:.2f} | {low:.2f} to {high:.2f} | {times[-1]:.2f} "
            f"| {sum(trial['code'] == 130 for trial in of)} | {total['one_line']} "
            f"| {total['resumable']} | {total['left']} |\n"
        )
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    seconds = ", ".join(f"{value:.1f} s ({name})" for name, value in result["seconds"].items())
    python, machine = result["python"], result["machine"]
    return text + TAIL.format(versions=versions, python=python, machine=machine, seconds=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50, help="trials: main process, worker, dask worker, scheduler")
    parser.add_argument("--interrupts", type=int, default=20, help="of each executor")
    parser.add_argument("--only", nargs="*", help="kinds that contain one of these words")
    options = parser.parse_args()
    if options.render:
        options.out.write_text(render(json.loads(options.render.read_text())))
    else:
        measure(options.out, options.kills, options.interrupts, options.only)


if __name__ == "__main__":
    main()

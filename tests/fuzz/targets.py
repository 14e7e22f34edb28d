"""Every place where foreign bytes or text enter, with valid input to begin from and what a refusal may be.

A target is given a file (or a text, or a table) that is nearly valid, and reads it. It may succeed, or raise one of its
own errors; anything else that comes out is a finding. `finding_of` says which.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

SECONDS = 10.0
"""A case that takes longer hangs."""

LONGEST_LINE, MOST_LINES = 1500, 40

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (9, 7)).astype(np.uint8)
VOLUME = RNG.integers(-100, 100, (3, 6, 5)).astype(np.int16)


@attrs.frozen(kw_only=True)
class Target:
    """One entrance.

    Attributes:
        name: of the target.
        cases: strategy of the inputs.
        read: what is done with one, in a folder of its own.
        refusals: the exceptions that mean "bad input".
        names: whether a refusal has to name the file.
    """

    name: str
    cases: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    refusals: tuple[type[BaseException], ...]
    names: str = ""
    seconds: float = SECONDS


class Hang(BaseException):
    """A case took too long. No `except Exception` stops it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"more than {seconds:g} s")

    # of the processor's time, and of the clock's for what waits; the machine may have other things to do
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, 12 * seconds)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def finding_of(target: Target, case: Any, folder: Path) -> str | None:
    """What is wrong with the way a target takes a case; None if nothing is.

    Args:
        folder: an empty sandbox, the working directory and the home of whatever runs.
    """
    try:
        with time_limit(target.seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(case, folder)
    except target.refusals as error:
        finding = wrong_with(str(error), target.names)
        return finding and f"{type(error).__name__}: {finding}"
    except Hang as error:
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        return f"hang: {error}, in {' '.join(places[-5:-1])}"
    except BaseException as error:
        if type(error).__module__.startswith("hypothesis") or isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__} comes out: {str(error)[:200]!r}"
    return None


def wrong_with(message: str, name: str = "") -> str | None:
    """What keeps a message from being short lines that print and name their subject."""
    lines = message.split("\n")
    if not message.strip():
        return "an empty message"
    if len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in lines):
        return f"a message of {len(lines)} lines and {len(message)} characters"
    if not all(line.isprintable() for line in lines):
        return f"a message that does not print: {message[:200]!r}"
    if name not in message:
        return f"a message that does not name {name}: {message[:200]!r}"
    return None


# bytes: valid files, a little wrong

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


@st.composite
def damaged(draw: st.DrawFn, originals: Callable[[], list[bytes]]) -> bytes:
    """A valid file after one to four changes: bytes, numbers of headers, cuts, splices, growth."""
    content = bytearray(draw(st.sampled_from(originals())))
    for _ in range(draw(st.integers(1, 4))):
        # most headers are at the beginning, the directory of an archive at the end
        size = len(content)
        low, high = draw(st.sampled_from([(0, 64), (0, 512), (0, size), (size - 128, size)]))
        at = draw(st.integers(max(0, low), max(0, min(high, size))))
        change = draw(st.sampled_from(["byte", "number", "cut", "drop", "splice", "insert", "repeat", "grow"]))
        if change == "byte":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "number":
            width, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            content[at : at + width] = (draw(st.sampled_from(EXTREMES)) % 2 ** (8 * width)).to_bytes(width, order)
        elif change == "cut":
            del content[at:]
        elif change == "drop":
            del content[at : at + draw(st.integers(1, 16))]
        elif change == "splice":
            start = draw(st.integers(0, size))
            content[at : at + 16] = content[start : start + draw(st.integers(1, 64))]
        elif change == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif change == "repeat":
            content[at:at] = content[at : at + 32] * draw(st.sampled_from([1, 10, 1000]))
        else:
            content += b"\0" * draw(st.sampled_from([1, 100, 100_000]))
    return bytes(content)


def _once(make: Callable[[Path], object], suffix: str) -> Callable[[], list[bytes]]:
    """The files that `make` writes, made at the first question."""
    made: list[bytes] = []

    def originals() -> list[bytes]:
        if not made:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                for i, maker in enumerate(make if isinstance(make, list) else [make]):
                    maker(Path(folder, f"{i}{suffix}"))
                    made.append(Path(folder, f"{i}{suffix}").read_bytes())
        return made

    return originals


def _npz(path: Path) -> None:
    np.savez_compressed(path, x=IMAGE, y=VOLUME)


def _picture(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        Image.fromarray(IMAGE).convert(mode).save(path)

    return write


def _tiff(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import tifffile

        tifffile.imwrite(path, VOLUME, photometric="minisblack", **options)

    return write


def _hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["y"] = VOLUME
        file.create_dataset("group/x", data=IMAGE, chunks=(3, 7), compression="gzip")


def _nifti(path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), path)


def _nifti2(path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti2Image(VOLUME, np.eye(4)), path)


def _dicom(path: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = pydicom.uid.CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = "1.2.3.4"
    ds.Modality, ds.SeriesInstanceUID, ds.InstanceNumber = "CT", "1.2.3", 1
    ds.Rows, ds.Columns = IMAGE.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.RescaleSlope, ds.RescaleIntercept = "2", "-1024"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 1], [1, 0, 0, 0, 1, 0]
    ds.PixelData = IMAGE.tobytes() + b"\0"
    ds.save_as(path, enforce_file_format=True)


def _safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    metadata = {"scoreplug": json.dumps({"model": {"name": "openai-unet", "params": {"image_shape": [1, 8, 8]}}})}
    save_file({"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16)}, path, metadata)


def _pt(*, zipped: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import torch

        state = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16)}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)

    return write


def _file(name: str, reader: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        try:
            return reader(path)
        finally:
            path.unlink()

    return read


def _array(path: Path) -> None:
    from scoreplug.data import _file as limits
    from scoreplug.data.files import DataError, open_array

    for package in ("nibabel", "pydicom", "tifffile", "h5py"):
        logging.getLogger(package).setLevel(logging.CRITICAL)
    limits.LARGEST = min(limits.LARGEST, 2**22)  # the machine has other things to do
    file = open_array(path, names=("x", "y"))
    with contextlib.suppress(DataError):  # of its size, which a slice need not have
        file.read()
    if file.shape:
        file.read(0, 0)


def _checkpoint(path: Path) -> None:
    from scoreplug.checkpoint import CheckpointError, load_state_dict, read_model_config

    with contextlib.suppress(CheckpointError):  # weights may be whole where the model is not said
        read_model_config(path)
    load_state_dict(path)


def _model_config(path: Path) -> None:
    from scoreplug.checkpoint import read_model_config

    name, params = read_model_config(path)
    json.dumps({"name": name, **params}).encode()


def _files() -> list[Target]:
    from scoreplug.checkpoint import CheckpointError
    from scoreplug.data.files import DataError

    arrays: dict[str, Any] = {
        ".npy": [lambda path: np.save(path, VOLUME), lambda path: np.save(path, IMAGE.astype(np.complex64))],
        ".npz": [_npz, lambda path: np.savez(path, x=IMAGE)],
        ".png": [_picture("L"), _picture("RGB"), _picture("1")],
        ".jpg": [_picture("L"), _picture("RGB")],
        ".bmp": [_picture("L"), _picture("RGB")],
        ".tif": [_tiff(), _tiff(compression="zlib"), _tiff(tile=(16, 16)), _tiff(bigtiff=True)],
        ".h5": _hdf5,
        ".nii": [_nifti, _nifti2],
        ".nii.gz": _nifti,
        ".dcm": _dicom,
    }
    targets = [
        Target(
            name=suffix[1:],
            cases=damaged(_once(make, suffix)),
            read=_file(f"x{suffix}", _array),
            refusals=(DataError,),
            names=f"x{suffix}",
        )
        for suffix, make in arrays.items()
    ]
    weights = {
        "safetensors": (_safetensors, ".safetensors", _checkpoint),
        "safetensors-model": (_safetensors, ".safetensors", _model_config),
        "pt": (_pt(zipped=True), ".pt", _checkpoint),
        "pt-legacy": (_pt(zipped=False), ".pt", _checkpoint),
    }
    targets += [
        Target(
            name=name,
            cases=damaged(_once(make, suffix)),
            read=_file(f"x{suffix}", reader),
            refusals=(CheckpointError,),
            names=f"x{suffix}",
        )
        for name, (make, suffix, reader) in weights.items()
    ]
    header = st.builds(_safetensors_of, st.deferred(lambda: json_values), st.integers(0, 2**64 - 1) | st.none())
    targets.append(
        Target(
            name="safetensors-header",
            cases=header,
            read=_file("x.safetensors", lambda path: (_checkpoint(path), _model_config(path))),
            refusals=(CheckpointError,),
            names="x.safetensors",
        )
    )
    return targets


def _safetensors_of(table: Any, length: int | None) -> bytes:
    """A file whose header is of the form, with values that need not be."""
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(48)


# text and tables: a valid config, a little wrong

odd_text = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *("", "\0", "\x1b[31m", "\u202eevil", "a\nb", "é", "x" * 5000),
            *"../../x /etc/passwd /dev/zero a:b scoreplug:dps --out x.safetensors ../x.pt mask.npy".split(),
            *"nan cpu name oracle {0} %s".split(),
        ]
    ),
)
odd_numbers = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, 2**64 - 1, -(2**63), 10**30, 10**400, -(10**5000)]),
    st.floats(),
    st.sampled_from([1e308, 5e-324, -0.0]),
)
odd = st.one_of(odd_text, odd_numbers, st.booleans(), st.dates(), st.just([]), st.just({}))
json_values = st.recursive(
    st.one_of(odd_text, st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            odd_text
            | st.sampled_from(
                ["__metadata__", "scoreplug", "a", "b", "dtype", "shape", "data_offsets", "model", "name"]
            ),
            inner,
            max_size=4,
        ),
        st.fixed_dictionaries(
            {"dtype": st.sampled_from(["F32", "F64", "U8", "BOOL", "F8_E4M3", "X"]), "shape": inner},
            optional={"data_offsets": st.lists(st.integers(-(2**63), 2**64), min_size=2, max_size=2) | inner},
        ),
    ),
    max_leaves=12,
)
values = st.one_of(
    odd,
    st.lists(odd, max_size=4),
    st.dictionaries(odd_text, odd, max_size=3),
    st.integers(1, 200).map(lambda depth: _nested(depth)),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for i in range(depth):
        value = [value] if i % 2 else {"a": value}
    return value


def places(table: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys of a table, as paths."""
    pairs = table.items() if isinstance(table, Mapping) else enumerate(table) if isinstance(table, list) else ()
    return [path for key, value in pairs for path in [(*at, key), *places(value, (*at, key))]]


@st.composite
def changed(draw: st.DrawFn, tables: Callable[[], list[Any]]) -> Any:
    """A valid table with one to three values or keys that are something else, away, or new."""
    table = json.loads(json.dumps(draw(st.sampled_from(tables()))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(table) or [("x",)]))
        inner = table
        for key in path[:-1]:
            inner = inner[key]
        change = draw(st.sampled_from(["value", "value", "value", "drop", "key", "new", "move"]))
        if change == "value":
            inner[path[-1]] = draw(values)
        elif isinstance(inner, list):
            inner.append(draw(values))
        elif change == "drop":
            inner.pop(path[-1], None)
        elif change == "key":
            inner[draw(odd_text)] = inner.pop(path[-1], 0)
        elif change == "new":
            inner[draw(odd_text | st.sampled_from(["name", "seed", "checkpoint", "steps"]))] = draw(values)
        else:
            table[str(path[0])] = inner[path[-1]] if path[-1] in inner else 0
    return table


def as_toml(table: Any, equals: str = " = ") -> str:
    """A table in TOML, written by hand: a library would refuse half of what is to be tried."""
    if isinstance(table, bool):
        return str(table).lower()
    if isinstance(table, int) and table.bit_length() > 64:
        return f"{'-' if table < 0 else ''}1{'0' * int(table.bit_length() * 0.30103)}"
    if isinstance(table, float):
        return repr(table)
    if isinstance(table, str):
        return json.dumps(table)
    if isinstance(table, Mapping):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(key))}{equals}{as_toml(value, equals)}" for key, value in table.items())
            + "}"
        )
    if isinstance(table, list | tuple):
        return "[" + ", ".join(as_toml(value, equals) for value in table) + "]"
    return str(table)


def as_json(table: Any) -> str:
    return as_toml(table, ": ").replace("None", "null")


def toml_file(table: Any) -> bytes:
    lines = [f"{json.dumps(str(key))} = {as_toml(value)}" for key, value in table.items()]
    return "\n".join(lines).encode("utf-8", errors="replace")


def _run_tables() -> list[Any]:
    from scoreplug.run.config import demo

    table = demo()
    other = {
        **table,
        "sde": {"name": "ve"},
        "sampler": {"name": "pc", "corrector": {"name": "langevin", "snr": 0.1}, "steps": 5},
        "operator": {"name": "inpainting", "mask": "random"},
        "conditioner": {"name": "dps", "scale": 1.0},
        "input": {"image": "x.png", "noise_std": 0.1, "data_range": [0, 255], "key": "x", "slice": 1, "axis": 0},
    }
    measured = {**other, "input": {"measurement": "y.npy", "noise_std": 0.1, "scale": 2.0}}
    return [table, other, measured]


def _suite_tables() -> list[Any]:
    from scoreplug.bench.suite import built_in, load

    return [json.loads(json.dumps(load(name)[1])) for name in built_in()]


def _training_tables() -> list[Any]:
    import tomllib

    import scoreplug_builtin.models

    folder = Path(next(iter(scoreplug_builtin.models.__path__)), "weights")
    return [tomllib.loads(path.read_text()) for path in sorted(folder.glob("*.toml"))]


def _read_config(path: Path) -> None:
    from scoreplug.run.config import demo, read, structure
    from scoreplug.run.overrides import layered

    config = structure(layered(demo(), read(path)))
    structure(json.loads(config.problem))
    config.to_toml()


def _resolve(table: Any, folder: Path) -> None:
    from scoreplug.run.config import parse_problem
    from scoreplug.run.resolve import resolve

    config = resolve(table)
    parse_problem(config.problem)
    config.to_toml()


def _assign(texts: list[str], folder: Path) -> None:
    from scoreplug.run.config import demo, structure
    from scoreplug.run.overrides import overridden, parse_assignment

    structure(overridden(demo(), [parse_assignment(text) for text in texts])).to_toml()


def _suite(path: Path) -> None:
    from scoreplug.bench.suite import load, parse

    name, table = load(str(path))
    parse(table, name=name, source=path.name)


def _training(path: Path) -> None:
    from scoreplug.training.config import TrainingConfig

    json.dumps(TrainingConfig.read(path).table)


def _disabled(path: Path) -> None:
    from scoreplug.registry._user_config import read_disabled

    read_disabled(path)


def _texts() -> list[Target]:
    from scoreplug.param import ParameterError
    from scoreplug.run.config import ConfigError

    def toml_cases(tables: Callable[[], list[Any]]) -> st.SearchStrategy[bytes]:
        return changed(tables).map(toml_file) | damaged(lambda: [toml_file(table) for table in tables()])

    keys = st.sampled_from(
        ["sampler.steps", "operator.mask", "input.noise_std", "model.name", "sampler.corrector.snr", "seed", "a.b.c.d"]
    ) | st.text('ab.-_"= \0', max_size=60)
    literals = values.map(as_toml) | odd_text | st.text("[]{}\"'0xe_.,=#tTrueinf-:Z", max_size=30)
    names = st.lists(odd_text, max_size=3)
    return [
        Target(
            name="config", cases=toml_cases(_run_tables), read=_file("x.toml", _read_config), refusals=(ConfigError,)
        ),
        Target(name="resolve", cases=changed(_run_tables), read=_resolve, refusals=(ConfigError,)),
        Target(
            name="set",
            cases=st.lists(st.builds(lambda k, v: f"{k}={v}", keys, literals) | odd_text, min_size=1, max_size=3),
            read=_assign,
            refusals=(ConfigError,),
        ),
        Target(name="suite", cases=toml_cases(_suite_tables), read=_file("x.toml", _suite), refusals=(ConfigError,)),
        Target(
            name="training",
            cases=toml_cases(_training_tables),
            read=_file("x.toml", _training),
            refusals=(ParameterError,),
        ),
        Target(
            name="plugins.toml",
            cases=toml_cases(lambda: [{"disabled": ["scoreplug-daps"]}]),
            read=_file("plugins.toml", _disabled),
            refusals=(ValueError,),
            names="plugins.toml",
        ),
        Target(
            name="environment",
            cases=st.dictionaries(
                st.sampled_from(
                    ["BLOCK", "PLUGINS", "DISABLE_AUTOLOAD", "STRICT", "CONFIG_DIR"],
                ).map("SCOREPLUG_{}".format),
                odd_text | names.map(",".join),
                max_size=3,
            ),
            read=_environment,
            refusals=(ValueError, FileNotFoundError),
        ),
        Target(
            name="rows", cases=_row_cases(), read=_file("rows.jsonl", _rows), refusals=(ValueError,), names="rows.jsonl"
        ),
        Target(name="plugin-metadata", cases=_distributions(), read=_plugins, refusals=()),
        Target(name="plugin-specs", cases=_specs(), read=_declare, refusals=(ValueError, TypeError)),
        Target(name="cli", cases=_commands(), read=_command, refusals=(), seconds=90.0),
    ]


def _environment(environ: Mapping[str, str], folder: Path) -> None:
    from scoreplug.registry import Selection

    for line in Selection.from_environment({"HOME": str(folder), **environ}).misses(["scoreplug"]):
        assert wrong_with(line) is None, wrong_with(line)


def _row_tables() -> list[Any]:
    from scoreplug.bench.cell import Cell, Row

    cell = Cell(
        problem={"name": "gaussian", "dimension": 2, "seed": 0},
        conditioner={"name": "dps", "scale": 1.0},
        sampler={"name": "ancestral", "steps": 3},
        sde=None,
        seed=0,
        n=10,
        budget=None,
        c2st=False,
        files={},
        versions={},
        problem_label="p",
        method_label="m",
    )
    return [json.loads(json.dumps(Row(cell=cell, status="refused", reason="because").table))]


def _row_cases() -> st.SearchStrategy[bytes]:
    plain = changed(_row_tables).map(lambda row: as_json(row).encode())
    return plain | damaged(lambda: [json.dumps(row).encode() + b"\n" for row in _row_tables()])


def _rows(path: Path) -> None:
    from scoreplug.bench.store import RowStore, find_row, read_rows, to_csv

    (path.parent / "rows").mkdir(exist_ok=True)
    try:
        (path.parent / "rows" / "x.json").write_bytes(path.read_bytes())
        RowStore(path.parent)._read(path.parent / "rows" / "x.json")
        to_csv(read_rows(path))
        with contextlib.suppress(LookupError):
            find_row(path, "")
    finally:
        (path.parent / "rows" / "x.json").unlink(missing_ok=True)
        (path.parent / "rows").rmdir()


def _distributions() -> st.SearchStrategy[dict[str, str]]:
    text = odd_text.map(lambda text: text.encode("utf-8", "replace").decode())
    name = text.map(lambda text: text.replace("/", "_").replace("\0", "_")[:80] or "x")
    points = st.lists(
        st.tuples(text, text | st.sampled_from(["json", "os:path", "no_such_module", "json:loads"])), max_size=3
    )
    lines = points.map(lambda pairs: "[scoreplug]\n" + "\n".join(f"{k} = {v}" for k, v in pairs))
    requires = (text | st.sampled_from(["scoreplug>=99", "scoreplug", "scoreplug ; python_version<'3'"])).map(
        "Name: x\nRequires-Dist: {}\n\ntext".format
    )
    url = changed(lambda: [{"url": "file:///x", "vcs_info": {"vcs": "git", "commit_id": "0"}, "dir_info": {}}]).map(
        as_json
    )
    return st.fixed_dictionaries(
        {"name": name, "entry_points.txt": lines | text, "METADATA": requires | text, "direct_url.json": url | text}
    )


def _plugins(distribution: dict[str, str], folder: Path) -> None:
    """All that the commands print of a distribution, which none of its text may spoil."""
    import shutil
    import sys

    from click.testing import CliRunner

    from scoreplug import registry
    from scoreplug.cli import main

    site = folder / "site"
    info = site / f"{distribution['name']}-1.0.dist-info"
    info.mkdir(parents=True)
    try:
        for file in ("entry_points.txt", "METADATA", "direct_url.json"):
            (info / file).write_text(distribution[file], encoding="utf-8", errors="replace")
        sys.path.insert(0, str(site))
        for args in (["plugins"], ["plugins", "--requirements"]):
            result = CliRunner().invoke(main, args)
            assert result.exit_code == 0, f"{result.exception!r}"
            bad = [line for line in result.output.split("\n") if not line.isprintable()]
            assert not bad, f"does not print: {bad[0]!r}"
    finally:
        sys.path.remove(str(site)) if str(site) in sys.path else None
        shutil.rmtree(site)
        registry.use(None)


def _specs() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    from scoreplug.registry.specs import SPECS

    good = {"name": "x-y", "summary": "s", "factory": "m:C"}
    any_value = odd | st.lists(odd, max_size=2) | st.none()
    fields = st.dictionaries(
        st.sampled_from(["name", "summary", "factory", "aliases", "references", "api", "example", "needs", "provides"]),
        any_value,
        max_size=3,
    )
    return st.tuples(st.sampled_from(sorted(SPECS)), fields.map(lambda change: {**good, **change}))


def _declare(case: tuple[str, dict[str, Any]], folder: Path) -> None:
    from scoreplug.registry.specs import SPECS

    kind, fields = case
    spec = SPECS[kind](**fields)
    assert wrong_with(" ".join([spec.name, spec.summary, spec.factory, *spec.aliases, *spec.references])) is None


def _commands() -> st.SearchStrategy[tuple[list[str], bytes]]:
    """Command lines, with the config x.toml that they may name."""
    settings = st.sampled_from(
        ["sampler.steps=0", "seed=-1", "operator.mask=x.npy", "model.checkpoint=x.pt", "input.noise_std=nan", "a=b"]
    ) | st.builds(lambda v: f"sampler.steps={as_toml(v)}", values)
    word = odd_text.filter(lambda text: not text.startswith("-"))
    flag = st.one_of(
        st.builds(lambda s: ["--set", s], settings),
        st.builds(
            lambda o, v: [o, v], st.sampled_from(["--model", "--sampler", "--image", "--measurement", "--device"]), word
        ),
        st.builds(
            lambda v: ["--out", v], st.sampled_from(["out", "a/..", "\0", "..", "x.toml", "x" * 300, "x.toml/y"])
        ),
        st.builds(lambda n: ["--samples", str(n)], st.integers(-1, 3)),
    )
    run = st.lists(flag, max_size=2).map(lambda flags: ["run", "x.toml", "--dry-run", *itertools.chain(*flags)])
    others = st.builds(
        lambda verb, name: [*verb, name],
        st.sampled_from([["show"], ["list"], ["check"], ["disable"], ["enable"], ["list", "--provides"], ["bench"]]),
        word,
    )
    config = changed(_run_tables).map(toml_file) | damaged(lambda: [toml_file(table) for table in _run_tables()])
    # most configs are refused before torch is asked; those that pass take their time
    return st.tuples(run | run | others, config)


def _command(case: tuple[list[str], bytes], folder: Path) -> None:
    from click.testing import CliRunner

    from scoreplug import registry
    from scoreplug.cli import main

    args, config = case
    (folder / "x.toml").write_bytes(config)
    try:
        result = CliRunner().invoke(main, [arg.encode("utf-8", "replace").decode() for arg in args])
    finally:
        (folder / "x.toml").unlink()
        registry.use(None)
    stopped = result.exception is None or isinstance(result.exception, SystemExit)
    assert stopped, f"{args}: {result.exception!r}"
    assert result.exit_code in (0, 1, 2), f"{args}: exit code {result.exit_code}"
    if result.exit_code:
        assert "Traceback" not in result.output
        assert "--traceback" not in result.stderr, f"an error of the code: {args}: {result.stderr[-400:]}"
        found = wrong_with(result.stderr[-20_000:].strip("\n"))
        assert found is None, f"{args}: {found}"


def targets() -> dict[str, Target]:
    """All of them, by name."""
    return {target.name: target for target in [*_files(), *_texts()]}


def tree(folder: Path) -> dict[str, int]:
    """The files and folders below a folder, with their sizes."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in sorted(folder.rglob("*"))}


@contextlib.contextmanager
def sandbox(folder: Path) -> Iterator[Path]:
    """A working directory and a home in one, from which nothing of the user is seen."""
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SCOREPLUG_CONFIG_DIR", "SCOREPLUG_CACHE")
    before, cwd = {name: os.environ.get(name) for name in names}, Path.cwd()
    (folder / "sandbox").mkdir()
    os.environ.update({name: str(folder / "home") for name in names})
    os.chdir(folder / "sandbox")
    try:
        yield folder / "sandbox"
    finally:
        os.chdir(cwd)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What is printed meanwhile, instead of printing it."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text

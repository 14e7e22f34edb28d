"""Files, configs and names that somebody made on purpose: no code of theirs runs, and nothing of theirs is believed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import attrs
import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from scoreplug import registry
from scoreplug.bench.store import read_rows
from scoreplug.checkpoint import CheckpointError, load_state_dict, read_model_config
from scoreplug.cli import main
from scoreplug.data import _file
from scoreplug.data.files import DataError, open_array
from scoreplug.foreign import DEEPEST, objection, one_line, printable, shown
from scoreplug.registry._user_config import read_disabled
from scoreplug.run.config import ConfigError, demo, read, structure
from scoreplug.run.overrides import overridden, parse_assignment
from scoreplug.run.resolve import resolve
from scoreplug.run.store import RunFolder
from scoreplug.training.config import TrainingConfig

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
from pathlib import Path
from scoreplug.data.files import DataError, open_array
try:
    open_array(Path(sys.argv[1])).read({index})
except DataError as error:
    print(error)
"""


def refused(path, *index, seconds=5.0):
    """The one line with which a file is refused, soon."""
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        open_array(path).read(*index)
    assert time.monotonic() - began < seconds
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500
    return str(caught.value)


# checkpoints


class Call:
    """A pickle that calls something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def gadgets(marker):
    write = f"open({str(marker)!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "subprocess": Call(subprocess.call, ["touch", str(marker)]),
        "exec": Call(exec, write),
        "eval": Call(eval, write),
        "open": Call(open, str(marker), "w"),
        "torch.save": Call(torch.save, 1, str(marker)),
        "torch.load": Call(torch.load, str(marker)),
        "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {marker}"))),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("wrapped", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("gadget", gadgets(""))
def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path, gadget, wrapped):
    marker, path = tmp_path / "marker", tmp_path / "x.pt"
    state = {"a": torch.ones(2), "b": gadgets(marker)[gadget]}
    if wrapped == "pickle":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=wrapped == "zip")

    with pytest.raises(CheckpointError, match=r"x\.pt'?: (holds code|damaged)"):
        load_state_dict(path)
    assert not marker.exists()


def test_opcodes_of_the_oldest_pickles_do_not_run_code_either(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "x.pt"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")

    with pytest.raises(CheckpointError, match=r"holds code|damaged"):
        load_state_dict(path)
    assert not marker.exists()


def test_an_archive_in_a_checkpoint_is_not_unpacked(tmp_path):
    path, inner = tmp_path / "x.pt", io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for name in ("storages", "tensors", "pickle", "../escaped"):
            content = b"cos\nsystem\n(S'touch escaped'\ntR."
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(inner.getvalue())

    with pytest.raises(CheckpointError, match=r"x\.pt"):
        load_state_dict(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


def test_a_member_with_a_way_out_of_the_archive_is_not_written(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    torch.save({"a": torch.ones(2)}, folder / "x.pt")
    with zipfile.ZipFile(folder / "x.pt", "a") as archive:
        archive.writestr("../escaped", "x")
        archive.writestr("/tmp/escaped-from-a-checkpoint", "x")

    with contextlib.suppress(CheckpointError):
        load_state_dict(folder / "x.pt")

    assert sorted(file.name for file in tmp_path.rglob("*")) == ["inner", "x.pt"]
    assert not Path("/tmp/escaped-from-a-checkpoint").exists()


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 10_000

    with pytest.raises(CheckpointError, match="compressed, to a size that is not known"):
        load_state_dict(tmp_path / "bomb.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_declares_more_than_is_stored_is_refused(tmp_path, zipped):
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)

    with pytest.raises(CheckpointError, match=r"'a' declares \(1000000000000,\), more than is stored"):
        load_state_dict(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
    ],
    ids=["sparse", "without values", "quantized"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_tensor_that_is_not_plain_is_refused(tmp_path, make):
    torch.save({"a": make()}, tmp_path / "x.pt")

    with pytest.raises(CheckpointError, match=r"'a' is no plain tensor|damaged|holds code"):
        load_state_dict(tmp_path / "x.pt")


def test_names_of_weights_are_strings(tmp_path):
    torch.save({1: torch.ones(2), "a": torch.ones(2)}, tmp_path / "x.pt")

    with pytest.raises(CheckpointError, match=r"names to tensors: save that alone \(found \['a', 'int'\]\)"):
        load_state_dict(tmp_path / "x.pt")


def tensors(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "longer than any file": struct.pack("<Q", 2**63) + b"{}",
    "longest": struct.pack("<Q", 2**64 - 1) + b"{}",
    "overlapping": tensors(a=F32, b=F32),
    "negative": tensors(a={**F32, "data_offsets": [-8, 0]}),
    "backwards": tensors(a={**F32, "data_offsets": [8, 0]}),
    "beyond the end": tensors(a={**F32, "data_offsets": [0, 10**6], "shape": [250_000]}),
    "beyond 64 bits": tensors(a={**F32, "data_offsets": [0, 2**70]}),
    "product beyond 64 bits": tensors(a={**F32, "shape": [2**40, 2**40]}),
    "unknown type": tensors(a={**F32, "dtype": "F7"}),
    "no type": tensors(a={"shape": [2]}),
    "deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("reader", [load_state_dict, read_model_config])
def test_a_safetensors_header_that_lies_is_refused(tmp_path, header, reader):
    (tmp_path / "x.safetensors").write_bytes(HEADERS[header])

    with pytest.raises(CheckpointError, match=r"x\.safetensors': damaged"):
        reader(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("[" * 100_000, "RecursionError"),
        ('{"model": {"name": "x", "params": ' + '{"a":' * 50 + "1" + "}" * 50 + "}}", "lie deeper than 24"),
        ('{"model": {"name": "x", "params": {"a": 1' + "0" * 300 + "}}}", "beyond 2^64"),
        ('{"model": {"name": "x", "params": {"a": 1' + "0" * 5000 + "}}}", "does not describe a model"),
        ('{"model": {"name": "\\ud800", "params": {}}}', "lone surrogate"),
        ('{"model": {"name": "' + "x" * 10_000 + '", "params": 1}}', "does not describe a model (got "),
        ('{"model": {"name": "\x1b[31m", "params": {}}}', "does not describe a model: JSONDecodeError"),
    ],
)
def test_a_description_that_no_model_can_have_is_refused(tmp_path, description, message):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", {"scoreplug": description})

    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path / "x.safetensors")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


# arrays


def header_of(shape, descr="<f8", length=None, version=1):
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**15,), "declares float64 (1000000000000000,), 7450580.6 GiB"),
        ((2**60, 2**60), "over 2^70 GiB"),
        ((10**400,), "over 2^70 GiB"),
        ((-1, 5), "which no array can have"),
        ((-(10**9), -(10**9)), "GiB"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_an_array_of_a_declared_size_that_nobody_has_is_refused(tmp_path, shape, message, suffix):
    content = header_of(shape) + bytes(100)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", content)
    else:
        path.write_bytes(content)

    assert message in refused(path)


def test_a_slice_is_not_cut_out_of_a_whole_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(_file, "LARGEST", 5_000)
    volume = np.zeros((40, 10, 10), np.uint16)
    np.savez_compressed(tmp_path / "x.npz", x=volume)
    tifffile.imwrite(tmp_path / "x.tif", volume, photometric="minisblack", compression="zlib")
    for name in ("x.npz", "x.tif"):
        assert "uint16" in refused(tmp_path / name, 0, 0) or "uint8" in refused(tmp_path / name, 0, 0)


@pytest.mark.parametrize("length", [10_001, 60_000])
def test_a_header_of_numpy_is_short(tmp_path, length):
    (tmp_path / "x.npy").write_bytes(header_of((2,), length=length) + bytes(100_000))

    assert "its header declares more than 10000 bytes" in refused(tmp_path / "x.npy")


def test_a_header_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            file.write(header_of((2,), length=2**30, version=2))
            for _ in range(64):
                file.write(bytes(2**20))
    code = LIMITED.format(memory=3 * 2**29, index="")
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.npz")], capture_output=True, text=True, check=True
    )

    assert "its header declares more than 10000 bytes" in ran.stdout


def test_objects_in_an_array_are_code_and_not_loaded(tmp_path):
    marker = tmp_path / "marker"
    evil = np.array([Call(os.system, f"touch {marker}")], dtype=object)
    np.save(tmp_path / "x.npy", evil)
    np.savez(tmp_path / "x.npz", x=evil)
    for name in ("x.npy", "x.npz"):
        assert "pickled code" in refused(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize(
    "member", ["../../x.npy", "/tmp/escaped-from-an-npz.npy", "a/../../x.npy", "\x1b[31m.npy", "x\n.npy"]
)
def test_no_name_of_a_member_leads_out_of_an_npz(tmp_path, member):
    folder, content = tmp_path / "inner", io.BytesIO()
    folder.mkdir()
    np.save(content, np.ones(3))
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr(member, content.getvalue())
        archive.writestr("other.npy", content.getvalue())

    message = refused(folder / "x.npz")

    assert "say which array is meant" in message
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["inner", "x.npz"]
    assert not Path("/tmp/escaped-from-an-npz.npy").exists()


def test_a_member_that_is_a_link_is_bytes_and_no_link(tmp_path):
    link = zipfile.ZipInfo("x.npy")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(link, "/etc/passwd")

    assert "root:" not in refused(tmp_path / "x.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_header_and_values_are_those_of_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for array in (np.zeros(10**6), np.ones(3)):
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr("x.npy", content.getvalue())

    assert open_array(tmp_path / "x.npz").read().tolist() == [1.0, 1.0, 1.0]


def test_a_hundred_thousand_names_make_one_short_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}.npy", b"")

    assert " ... " in refused(tmp_path / "x.npz", seconds=20.0)


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_a_picture_of_a_declared_size_that_nobody_has_is_refused(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png(*size))

    refused(tmp_path / "x.png")


def test_a_picture_is_of_the_formats_that_are_named_and_never_a_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("a program was run"))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was run"))
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch marker) (w) file\n%%EOF\n"
    )
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "gif", format="GIF")
    (tmp_path / "gif").rename(tmp_path / "x.jpg")

    assert "cannot identify image" in refused(tmp_path / "x.png")
    assert "cannot identify image" in refused(tmp_path / "x.jpg")


def test_a_tiff_of_a_declared_size_that_nobody_has_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8), np.uint8), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+") as file:
        file.pages.first.tags["ImageWidth"].overwrite(2**31 - 1)
        file.pages.first.tags["ImageLength"].overwrite(2**31 - 1)

    refused(tmp_path / "x.tif")


def test_pages_of_a_tiff_that_follow_each_other_in_a_circle_end(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        first, second = file.pages[0].offset, file.pages[1].offset
    at = content.index(struct.pack("<I", second), first)
    content[at : at + 4] = struct.pack("<I", first)
    (tmp_path / "x.tif").write_bytes(content)
    began = time.monotonic()

    with contextlib.suppress(DataError):
        open_array(tmp_path / "x.tif").read()

    assert time.monotonic() - began < 5.0


def test_a_dataset_that_is_empty_and_huge_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000), compression="gzip")
    assert (tmp_path / "x.h5").stat().st_size < 10_000

    assert "GiB" in refused(tmp_path / "x.h5")


@pytest.fixture
def secret(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.full(8, 7.0)
    return tmp_path / "secret.h5"


def test_hdf5_follows_no_link_to_another_file(tmp_path, secret):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(secret), "/x")
        file["y"] = h5py.SoftLink("/x")

    assert "holds no arrays" in refused(tmp_path / "x.h5")
    with pytest.raises(DataError, match="holds no array 'x'"):
        open_array(tmp_path / "x.h5", key="x")


def test_a_virtual_dataset_does_not_read_another_file(tmp_path, secret):
    layout = h5py.VirtualLayout(shape=(8,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", shape=(8,))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)

    assert "keeps the values of 'x' in other files, which are not opened" in refused(tmp_path / "x.h5")


def test_values_of_hdf5_do_not_come_from_a_file_of_the_system(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", shape=(20,), dtype="u1", external=[("/etc/passwd", 0, 20)])

    assert "keeps the values of 'x' in other files, which are not opened" in refused(tmp_path / "x.h5")


def nifti(path, shape=(3, 6, 5), **fields):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 6, 5), np.int16), np.eye(4)), path.with_name("plain.nii"))
    content = bytearray(path.with_name("plain.nii").read_bytes())
    if "vox_offset" in fields:
        struct.pack_into("<f", content, 108, fields["vox_offset"])
    struct.pack_into("<8h", content, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


@pytest.mark.parametrize(("name", "message"), [("x.nii", "its header declares"), ("x.nii.gz", "GiB")])
def test_a_volume_of_a_declared_size_that_nobody_has_is_refused(tmp_path, name, message):
    assert message in refused(nifti(tmp_path / name, shape=(30_000, 30_000, 30_000)))


@pytest.mark.parametrize("offset", [1e15, -1e15, float("inf")])
def test_a_volume_that_begins_beyond_all_files_is_refused(tmp_path, offset):
    refused(nifti(tmp_path / "x.nii.gz", vox_offset=offset))


def test_a_zipped_volume_is_not_unpacked_beyond_what_it_declares(tmp_path):
    path = nifti(tmp_path / "x.nii.gz")
    with gzip.open(path, "rb") as file:
        volume = file.read()
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(volume)
        for _ in range(200):
            file.write(bytes(10**6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert open_array(path).read().shape == (3, 6, 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB, half of what lies behind


def dicom_element(group, element, vr, length, value=b""):
    return (
        struct.pack("<HH2s", group, element, vr)
        + (struct.pack("<HI", 0, length) if vr in (b"OB", b"OW", b"UN", b"SQ") else struct.pack("<H", length))
        + value
    )


@pytest.mark.parametrize(
    "element",
    [
        dicom_element(0x0029, 0x1010, b"UN", 2**32 - 2),
        dicom_element(0x7FE0, 0x0010, b"OW", 2**32 - 2),
        dicom_element(0x0008, 0x1140, b"SQ", 2**32 - 1) * 2000,
    ],
    ids=["private", "pixels", "deep sequence"],
)
def test_lengths_that_a_dicom_file_declares_are_not_believed(tmp_path, element):
    uid = b"1.2.840.10008.1.2.1\0"
    meta = dicom_element(2, 0x10, b"UI", len(uid), uid)
    (tmp_path / "x.dcm").write_bytes(
        bytes(128) + b"DICM" + dicom_element(2, 0, b"UL", 4, struct.pack("<I", len(meta))) + meta + element
    )

    refused(tmp_path / "x.dcm")


# what is no file


def readers():
    return {
        "config": (read, ConfigError, "x.toml"),
        "training": (TrainingConfig.read, (OSError, ValueError), "x.toml"),
        "plugins": (read_disabled, ValueError, "plugins.toml"),
        "weights": (load_state_dict, CheckpointError, "x.safetensors"),
        "pickle": (load_state_dict, CheckpointError, "x.pt"),
        "model": (read_model_config, CheckpointError, "x.safetensors"),
        "array": (lambda path: open_array(path).read(), DataError, "x.npy"),
        "picture": (lambda path: open_array(path).read(), DataError, "x.png"),
        "volume": (lambda path: open_array(path).read(), DataError, "x.nii.gz"),
        "rows": (read_rows, (OSError, ValueError), "rows.jsonl"),
    }


@pytest.mark.parametrize("kind", ["fifo", "zero", "circle", "folder", "nothing", "nul", "long"])
@pytest.mark.parametrize("reader", readers())
def test_a_pipe_a_device_and_a_circle_of_links_neither_hang_nor_crash(tmp_path, reader, kind):
    call, refusal, name = readers()[reader]
    path = tmp_path / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nul":
        path = tmp_path / f"a\0{name}"
    elif kind == "long":
        path = tmp_path / ("a" * 5000 + name)
    began = time.monotonic()

    if reader == "plugins" and kind in ("nothing", "nul"):
        assert call(path) == ()
    else:
        with pytest.raises(refusal):
            call(path)
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_mask_is_read_like_any_other_foreign_array(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match=f"mask cannot be read from .*x.{suffix}"):
        registry.get_operator("inpainting", image_shape=(1, 8, 8), mask=str(path))

    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"mask cannot be read from .*x.{suffix}"):
        registry.get_operator("inpainting", image_shape=(1, 8, 8), mask=str(path))


# configs

TOMLS = {
    "nested lists": ("a = " + "[" * 10_000 + "]" * 10_000, "lie deeper than 24"),
    "nested tables": ("a = " + "{a = " * 3000 + "1" + "}" * 3000, "lie deeper than 24"),
    "dotted key": ("a" + ".a" * 20_000 + " = 1", "a key has more than 24 parts"),
    "dotted table": ("[a" + ".a" * 20_000 + "]", "a key has more than 24 parts"),
    "quoted key": ('"a b"' + '."a b"' * 20_000 + " = 1", "a key has more than 24 parts"),
    "too large": ("# " + "x" * 2**20, "more than 1024 KiB"),
    "digits": ("samples = 1" + "0" * 5000, "is not TOML"),
    "hexadecimal": ("samples = 0x" + "f" * 5000, "an integer of 20000 bits is beyond 2^64"),
    "date": ("[sampler]\nname = 'em'\nsteps = 2020-01-01", "is a date or time, which no parameter takes"),
    "twice": ("samples = 1\nsamples = 2", "is not TOML"),
    "control": ("samples = '\x1b[31m'", "is not TOML"),
    "not a text": (b"\xff\xfe", "is not TOML"),
}


@pytest.mark.parametrize("case", TOMLS)
def test_a_toml_file_of_another_size_or_depth_is_refused_soon(tmp_path, case):
    content, message = TOMLS[case]
    (tmp_path / "x.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()

    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "x.toml")

    assert time.monotonic() - began < 2.0
    assert message in str(caught.value)
    assert "x.toml" in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_a_hundred_megabytes_of_toml_are_not_read(tmp_path):
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(10**8)
    began = time.monotonic()

    with pytest.raises(ConfigError, match="more than 1024 KiB"):
        read(tmp_path / "x.toml")
    assert time.monotonic() - began < 1.0


def test_a_key_with_as_many_parts_as_allowed_is_read(tmp_path):
    (tmp_path / "x.toml").write_text("a" + ".a" * (DEEPEST - 2) + " = 'v.1.2.3.4'\n")

    assert "a" in read(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=" + "[" * 5000, "lie deeper than 24"),
        ("a." * 5000 + "a=1", "a key of at most 24 parts"),
        ("samples=0x" + "f" * 5000, "beyond 2^64"),
        ("a=[2020-01-01]", "is a date or time"),
        ("a=\x1b[31m", "one line of printable text"),
        ("\x1b[31m", "--set takes role.key=value"),
        ("x" * 100_000, "--set takes role.key=value"),
    ],
)
def test_an_assignment_that_no_parameter_takes_is_refused(text, message):
    with pytest.raises(ConfigError) as caught:
        structure(overridden(demo(), [parse_assignment(text)]))

    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
def test_a_number_that_is_no_float_is_refused_and_named(value):
    with pytest.raises(ConfigError, match=r"noise_std|input"):
        structure({**demo(), "input": {"source": "ellipses", "noise_std": value}})


def test_more_samples_than_can_be_planned_are_refused():
    with pytest.raises(ConfigError, match="samples must be >= 1"):
        structure({**demo(), "samples": 10**15})


def test_a_thousand_problems_are_counted_and_some_of_them_listed():
    with pytest.raises(ConfigError) as caught:
        structure({**demo(), **{f"k{i}": 1 for i in range(1000)}})

    assert str(caught.value).startswith("1000 problems:")
    assert str(caught.value).count("\n") == 31
    assert len(caught.value.problems) == 1000


def test_a_suite_does_not_count_to_billions(tmp_path):
    from scoreplug.bench.suite import parse

    names = ["dps"] * 400
    table = {
        "problems": [{"problem": "gaussian-mixture", "seeds": 2**31}],
        "methods": [{"conditioner": names, "sampler": names, "sde": names}],
    }
    with pytest.raises(ConfigError, match=r"at most 100000 seeds[\s\S]*64000000 combinations"):
        parse(table, name="x")


# names and what reaches a terminal


def test_what_does_not_print_is_escaped_and_lines_stay_lines():
    assert printable("a\x1b[31m\u202e\nb\x07") == "a\\x1b[31m\\u202e\nb\\x07"
    assert one_line("a\r\n  b\tc\x00") == "a b c\\x00"
    assert len(one_line("x" * 10**6)) <= 1210
    assert shown("\x1b" * 3) == r"'\x1b\x1b\x1b'"
    assert shown(10**5000) == "an integer of 16610 bits"
    assert shown([10**5000]) == "a list that is too large to print"
    assert objection({"a": [1, 2.0, "x", True, None]}) is None


def test_nothing_of_a_plugin_controls_the_terminal(site):
    evil = "\x1b[31m\x07\u202e"
    site.install(
        f"evil{evil}",
        {"evil_module": f"raise ValueError({evil!r} + chr(10) + 'x' * 10000)"},
        {f"a{evil}": "evil_module"},
    )
    site.install_samplers("second", f"name='s', summary={'x' + evil!r}", module="second_module")
    site.install_samplers("third", "name='s', summary='s', references=('\\x1b[0m',)", module="third_module")

    for args in (["plugins"], ["plugins", "-v"], ["list", "sampler"], ["info", "--no-devices"], ["plugins", "--json"]):
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 0
        assert not set("\x1b\x07\u202e") & set(result.output), args
    registry.use(None)


def test_distributions_of_one_name_in_two_spellings_are_one_plugin(site):
    site.install_samplers("my_plugin", "name='first-one', summary='s'", module="my_module")
    site.install_samplers("My.Plugin", "name='second-one', summary='s'", module="other_module")

    plugins = [plugin for plugin in registry.Registry().plugins if plugin.name == "my-plugin"]

    assert len(plugins) == 1


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "a/b", "a\\b", "x\0", "-rf", "X" * 5000, "\x1b[31m"])
@pytest.mark.parametrize("role", ["model", "sde", "operator", "conditioner", "sampler"])
def test_a_component_is_no_path(role, name):
    with pytest.raises(ConfigError) as caught:
        resolve({**demo(), role: name})

    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_a_full_id_with_separators_makes_no_folder_elsewhere():
    from scoreplug.cli.run import _default_folder

    config = structure(demo())
    config = attrs.evolve(config, sampler=attrs.evolve(config.sampler, name="evil:../../../x:s"))
    folder = _default_folder(config)

    assert folder.parent == Path("runs")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "x\0.safetensors", "x.safetensors/../y.pt"])
def test_a_model_that_is_named_by_a_file_is_a_file_of_weights_or_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        resolve({**demo(), "model": name})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["x\0y", "..", "new/.."])
def test_an_output_folder_that_cannot_be_named_is_refused_before_anything_is_made(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    with pytest.raises(OSError, match="output folder"):
        RunFolder(Path(out)).check()

    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]


def test_a_record_of_an_origin_cannot_add_a_line_to_the_requirements(site):
    record = json.dumps({"url": "file:///x\n--index-url http://evil", "dir_info": {}})
    site.install("evil", {"evil_module": ""}, {"a": "evil_module"}, direct_url=record)

    result = CliRunner().invoke(main, ["plugins", "--requirements"])

    assert "evil" in result.output
    assert "index-url" not in result.output
    registry.use(None)


def test_metadata_that_is_a_pipe_does_not_hang_every_command(site):
    site.install("evil", {"evil_module": ""}, {"a": "evil_module"})
    info = next(site.path.glob("evil*.dist-info"))
    for name in ("entry_points.txt", "METADATA"):
        (info / name).unlink()
        os.mkfifo(info / name)

    assert CliRunner().invoke(main, ["plugins"]).exit_code == 0
    registry.use(None)
    shutil.rmtree(info)

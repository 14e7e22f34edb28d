"""Files of weights: nothing in them is run, damage is said, and a file is there whole or not at all."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scoreplug.checkpoint import CheckpointError, load_state_dict, read_model_config, write_checkpoint

STATE = {"a": torch.arange(600.0).reshape(20, 30), "b": torch.tensor([1.5], dtype=torch.float16)}
CONFIG = {"scoreplug": json.dumps({"model": {"name": "some-net", "params": {"width": 3}}, "card": {"data": "none"}})}


class Malicious:
    """What a pickle can do: here, make a file."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) and first[k].dtype == second[k].dtype for k in first
    )


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "w.safetensors", STATE, CONFIG)

    state, metadata = load_state_dict(tmp_path / "w.safetensors")

    assert same(state, STATE)
    assert metadata == CONFIG
    assert read_model_config(tmp_path / "w.safetensors") == ("some-net", {"width": 3})


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pytorch_state_dicts_are_read(tmp_path, legacy):
    torch.save(STATE, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)

    state, metadata = load_state_dict(str(tmp_path / "w.pt"))

    assert same(state, STATE)
    assert metadata == {}


def test_the_content_tells_the_format_not_the_name(tmp_path):
    save_file(STATE, tmp_path / "w.pt")

    assert same(load_state_dict(tmp_path / "w.pt")[0], STATE)


def test_tensors_in_any_memory_layout_are_written(tmp_path):
    shared = torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last)
    state = {
        "channels_last": shared,
        "view": shared,
        "transposed": shared[0, 0].T,
        "parameter": torch.nn.Parameter(shared),
    }

    write_checkpoint(tmp_path / "w.safetensors", state, {})

    read, _ = load_state_dict(tmp_path / "w.safetensors")
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_code_in_a_pickle_is_named_and_not_run(tmp_path):
    target = tmp_path / "made-by-the-pickle"
    with (tmp_path / "w.pt").open("wb") as file:
        pickle.dump({"a": Malicious(target)}, file, protocol=2)

    with pytest.raises(CheckpointError, match=r"w\.pt'?: holds code \(\w+\.mkdir\), which is not run"):
        load_state_dict(tmp_path / "w.pt")
    assert not target.exists()


def test_code_in_a_zipped_checkpoint_is_named_and_not_run(tmp_path):
    target = tmp_path / "made-by-the-pickle"
    torch.save({"a": Malicious(target)}, tmp_path / "w.pt")
    assert zipfile.is_zipfile(tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=r"holds code \(\w+\.mkdir\), which is not run"):
        load_state_dict(tmp_path / "w.pt")
    assert not target.exists()


@pytest.mark.parametrize("kept", [1, 8, 9, 100, 2000])
@pytest.mark.parametrize("name", ["w.safetensors", "zip.pt", "legacy.pt"])
def test_truncated_files_are_refused(tmp_path, name, kept):
    path = tmp_path / name
    if name == "w.safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "zip.pt")
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match=f"{name}'?: (damaged|the file is empty)"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"not a checkpoint, but some text", "damaged, or not a file of weights"),
        (b"\xff" * 7 + b"\x7f{", "damaged or not a safetensors file"),
    ],
    ids=["empty", "text", "absurd-header"],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "w.bin").write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        load_state_dict(tmp_path / "w.bin")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"state_dict": STATE, "epoch": 3}, r"found \['epoch', 'state_dict'\]"),
        ([STATE["a"]], "found list"),
        ({}, r"found \[\]"),
    ],
    ids=["nested", "list", "nothing"],
)
def test_anything_but_a_state_dict_is_refused(tmp_path, value, found):
    torch.save(value, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=f"is not a state dict.*{found}"):
        load_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("read", [load_state_dict, read_model_config])
def test_a_missing_file_or_a_folder_is_said(tmp_path, read):
    with pytest.raises(CheckpointError, match="there is no such file"):
        read(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "has no 'scoreplug' entry to say which model it is: name the model"),
        ({"scoreplug": "{"}, "does not describe a model: JSONDecodeError"),
        ({"scoreplug": "[]"}, "does not describe a model: TypeError"),
        ({"scoreplug": '{"model": {}}'}, "does not describe a model: KeyError"),
        ({"scoreplug": '{"model": {"name": 3, "params": {}}}'}, r"does not describe a model \(got"),
    ],
    ids=["none", "no-json", "list", "no-name", "number"],
)
def test_a_file_that_does_not_tell_its_model_is_refused(tmp_path, metadata, message):
    save_file(STATE, tmp_path / "w.safetensors", metadata=metadata)

    with pytest.raises(CheckpointError, match=message):
        read_model_config(tmp_path / "w.safetensors")


def test_a_pickle_does_not_tell_its_model(tmp_path):
    torch.save(STATE, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="not a safetensors file, so it does not say which model it is"):
        read_model_config(tmp_path / "w.pt")


def test_the_model_is_read_without_torch(tmp_path):
    write_checkpoint(tmp_path / "w.safetensors", STATE, CONFIG)
    code = (
        "import sys; from scoreplug.checkpoint import read_model_config; "
        f"print(read_model_config({str(tmp_path / 'w.safetensors')!r})[0], 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["some-net", "False"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    write_checkpoint(path, STATE, CONFIG)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scoreplug.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, {"a": torch.zeros(3)}, {})

    assert same(load_state_dict(path)[0], STATE)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match=r"w\.safetensors"):
        write_checkpoint(tmp_path / "nowhere" / "w.safetensors", STATE, {})


def test_the_error_travels_between_processes():
    error = CheckpointError("w.pt", "damaged")

    again = pickle.loads(pickle.dumps(error))

    assert (again.path, again.reason, str(again)) == ("w.pt", "damaged", str(error))

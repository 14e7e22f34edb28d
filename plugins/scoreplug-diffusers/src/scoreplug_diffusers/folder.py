"""The folder of a pipeline, as `save_pretrained` writes it: what is in it is read and judged before weights are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import attrs

from scoreplug.param import ParameterError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Configs and safetensors alone: a pickle is not even fetched.
_FILES = ["model_index.json", "config.json", "scheduler_config.json", "unet/config.json"]
_FILES += ["scheduler/scheduler_config.json", "*.safetensors", "*.safetensors.index.json"]


@attrs.frozen(kw_only=True)
class PipelineFolder:
    """An unconditional pipeline's files.

    Args:
        unet: folder with the network's config.json and weights.
        unet_config: that config.
        scheduler_config: the scheduler's config.
    """

    unet: Path
    unet_config: dict[str, Any]
    scheduler_config: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The file of weights, the index file if there are several."""
        whole, parts = sorted(self.unet.glob("*.safetensors")), sorted(self.unet.glob("*.safetensors.index.json"))
        return (parts or whole)[0]


def refuse(problem: str) -> ParameterError:
    """The error of this model, for the caller to raise."""
    return ParameterError("diffusers", [problem])


def open_folder(path: str, *, download: bool, revision: str | None) -> PipelineFolder:
    """Find a pipeline and read its configs.

    Args:
        path: a folder, or the id of a repository on the hub.
        download: fetch what is missing of a repository; without it, only what is on this machine is used.
        revision: branch, tag or commit of the repository.

    Raises:
        ParameterError: if there is no such pipeline, its files are damaged, or it is not unconditional.
    """
    root = _root(path, download=download, revision=revision)
    index = root / "model_index.json"
    if not index.is_file():
        hint = "; this is a single network: save the pipeline, so that its scheduler is known" if _is_unet(root) else ""
        raise refuse(f"{str(root)!r} is not the folder of a pipeline, as it has no model_index.json{hint}")
    parts = {name: part for name, part in _json(index).items() if not name.startswith("_") and part != [None, None]}

    # What stands in model_index.json is a module for the pipeline; other entries are settings of it.
    modules = {name: part[1] for name, part in parts.items() if isinstance(part, list) and len(part) == 2}
    if missing := {"unet", "scheduler"} - modules.keys():
        raise refuse(f"the pipeline in {str(root)!r} has no {' and no '.join(sorted(missing))}: it is no prior")
    if modules["unet"] != "UNet2DModel":
        raise refuse(f"the network in {str(root)!r} is a {modules['unet']}, {_why(modules['unet'])}")
    if others := sorted(modules.keys() - {"unet", "scheduler"}):
        raise refuse(
            f"the pipeline in {str(root)!r} also needs {', '.join(others)}: its network does not work on images alone"
        )

    unet = _part(root, "unet")
    folder = PipelineFolder(
        unet=unet,
        unet_config=_json(unet / "config.json"),
        scheduler_config=_json(_part(root, "scheduler") / "scheduler_config.json"),
    )
    _check_weights(unet)
    return folder


def _root(path: str, *, download: bool, revision: str | None) -> Path:
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    if not _HUB_ID.fullmatch(path):
        raise refuse(f"path {path!r} is no folder on this machine, and no id of a hub repository, 'owner/name'")

    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                path, revision=revision, allow_patterns=_FILES, local_files_only=not download
            )
        )
    except Exception as error:  # the hub's client raises errors of many libraries
        if download:
            raise refuse(f"{path!r} cannot be downloaded: {_first_line(error)}") from error
        raise refuse(
            f"path {path!r} is no folder on this machine, nor is a repository of that id in the hub's cache; "
            "download=true fetches it"
        ) from error


def _part(root: Path, name: str) -> Path:
    """The subfolder of a part; early repositories have all files in one folder."""
    return root / name if (root / name).is_dir() else root


def _is_unet(root: Path) -> bool:
    config = root / "config.json"
    return config.is_file() and "UNet2D" in str(_json(config).get("_class_name"))


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise refuse(f"there is no {str(path)!r}: the pipeline is not complete") from error
    except (OSError, ValueError) as error:
        raise refuse(f"{str(path)!r} is not readable JSON: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise refuse(f"{str(path)!r} is not a table of settings (found a {type(value).__name__})")
    return value


def _check_weights(unet: Path) -> None:
    if any(unet.glob("*.safetensors")):
        return
    if pickles := sorted([*unet.glob("*.bin"), *unet.glob("*.pt"), *unet.glob("*.ckpt")]):
        raise refuse(
            f"the weights in {str(unet)!r} are a pickle ({pickles[0].name}), which could run code and is not opened; "
            "load it where you trust it, and save it with save_pretrained(..., safe_serialization=True)"
        )
    raise refuse(f"there are no weights in {str(unet)!r}: it has no .safetensors file")


def _why(name: str) -> str:
    if "Condition" in name:
        return "which is conditioned on text or other features: only unconditional UNet2DModel networks are priors"
    return "only unconditional UNet2DModel networks are read"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

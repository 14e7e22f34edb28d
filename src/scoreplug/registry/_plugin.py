"""One plugin: who it is, where it comes from and how its loading ended."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from scoreplug.foreign import check_file
from scoreplug.registry.specs import ComponentSpec

BUILTIN = "scoreplug"
"""Identity of the plugin that ships with the core."""

State = Literal["ok", "blocked", "failed", "incompatible"]
Phase = Literal["import", "register", "hooks", "components"]


@attrs.frozen(kw_only=True)
class Origin:
    """Where an installed distribution was taken from, if not from an index (PEP 610).

    Attributes:
        url: of a repository, a folder or an archive; it has no credentials, which installers leave out.
        commit: of a repository.
        editable: it is used where it lies.
        vcs: "git", "hg", ... of a repository.
        subdirectory: of the repository or archive.
    """

    url: str
    commit: str | None = None
    editable: bool = False
    vcs: str | None = None
    subdirectory: str | None = None


@attrs.frozen(kw_only=True)
class Plugin:
    """A plugin after the attempt to load it.

    Attributes:
        name: its identity: the distribution's name, `dist:entry-point` if one distribution declares several plugins,
            or the name of a file.
        version: of the distribution.
        value: what the entry point refers to, or the path of the file.
        state: ok, blocked (by the user), failed, or incompatible (with this version of scoreplug).
        reason: why it is not ok, in one line.
        phase: where it failed.
        traceback: of the failure.
        requirement: what an incompatible plugin asks for.
        components: what it provides; empty unless it is ok.
        heavy: slow imports of its own that every command pays for ("torch", ...).
        info: the installed distribution's folder of metadata; None for a file.
    """

    name: str
    version: str | None = None
    value: str
    state: State = "ok"
    reason: str = ""
    phase: Phase | None = None
    traceback: str = ""
    requirement: str | None = None
    components: tuple[ComponentSpec, ...] = ()
    heavy: tuple[str, ...] = ()
    info: Path | None = None

    @property
    def builtin(self) -> bool:
        return self.name == BUILTIN

    @property
    def distribution(self) -> str:
        """What pip knows it by; a file's own name."""
        return self.name.partition(":")[0]

    @property
    def broken(self) -> bool:
        """It did not load, and nobody asked for that."""
        return self.state in ("failed", "incompatible")

    def origin(self) -> Origin | None:
        """URL and commit of an editable, local or VCS install; None for one from an index."""
        import json

        if self.info is None:
            return None
        try:
            check_file(self.info / "direct_url.json")
            record = json.loads(Path(self.info, "direct_url.json").read_text(encoding="utf-8"))
            vcs, folder = record.get("vcs_info", {}), record.get("dir_info", {})
            texts = {
                "url": record["url"],
                "commit": vcs.get("commit_id"),
                "vcs": vcs.get("vcs"),
                "subdirectory": record.get("subdirectory"),
            }
            if not all(text is None or text.isprintable() for text in texts.values()):
                return None
            return Origin(**texts, editable=bool(folder.get("editable")))
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return None  # absent, as for a distribution from an index, or damaged, which is no reason to stop

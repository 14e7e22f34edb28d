"""Where a plugin begins: a package with a small method that works, its tests, and its checks.

    from scoreplug.scaffold import Project, write

    write(Project(kind="conditioner", name="my-method"), "plugins")

What is made passes `scoreplug check` and its own tests as it stands; the author replaces one equation at a time. The
templates lie in `templates/`, one folder of files that all kinds share and one for each kind, laid out as the package
that comes of them. Nothing here imports torch.
"""

from __future__ import annotations

from scoreplug.scaffold.names import check_name as check_name
from scoreplug.scaffold.names import objections as objections
from scoreplug.scaffold.project import Project as Project
from scoreplug.scaffold.project import settled as settled
from scoreplug.scaffold.project import write as write

__all__ = ["Project", "check_name", "objections", "settled", "write"]

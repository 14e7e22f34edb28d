"""The kit of scoreplug, and what the plugin promises beside it."""

import pickle
import subprocess
import sys

import pytest

from scoreplug import registry
from scoreplug.testing import parametrize_with_checks

NAMES = ["astra-parallel", "astra-fan", "astra-parallel3d", "astra-cone"]


@parametrize_with_checks(*NAMES)
def test_conforms(check, subject):
    check(subject)


def test_listing_imports_neither_torch_nor_the_toolbox():
    code = (
        "import sys; from scoreplug import registry; "
        f"assert set({NAMES!r}) <= {{s.name for s in registry.list('operator')}}; "
        "assert not {'torch', 'astra', 'numpy', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_travels_as_its_parameters(name):
    """Also after use: the matrix stays behind."""
    A = registry.get_operator(name, **registry.spec("operator", name).example)
    _ = A.norm

    again = pickle.loads(pickle.dumps(A))

    assert len(pickle.dumps(A)) < 1000
    assert again.scan == A.scan

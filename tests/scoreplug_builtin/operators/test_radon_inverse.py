"""radon's pseudoinverse and its truncated decomposition, and the disk that the latter is kept on."""

import pytest
import torch

from scoreplug import registry
from scoreplug.operator import matrix_of
from scoreplug_builtin.operators import _cache
from scoreplug_builtin.operators._cache import CacheWarning
from scoreplug_builtin.operators.radon import MAX_SVD_ENTRIES


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOREPLUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(**params):
    return registry.get_operator("radon", image_shape=(1, 8, 8), angles=6, **params)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_pinv_meets_exact_data_to_its_tolerance(tolerance):
    A = make(pinv_tolerance=tolerance)
    y = A(draw(2, 1, 8, 8))

    assert float((A(A.pinv(y)) - y).norm()) <= tolerance * float(y.norm())


@pytest.mark.parametrize("tolerance", [0.3, 1e-2])
def test_the_truncated_svd_leaves_out_what_is_below_its_tolerance(tolerance):
    """|A - U S V^T| is the largest singular value left out."""
    A = make(svd_tolerance=tolerance)
    M, svd = matrix_of(A), A.svd
    k = svd.singular_values.numel()

    s = torch.linalg.svdvals(M)
    assert k == int((s > tolerance * s[0]).sum()) < len(s)
    unit = torch.eye(k, dtype=torch.float64).reshape(k, 1, k)
    U, V = svd.U(unit).flatten(1).T, svd.V(unit).flatten(1).T
    left_out = torch.linalg.matrix_norm(M - U @ torch.diag(svd.singular_values.flatten()) @ V.T, 2)
    torch.testing.assert_close(left_out, s[k], rtol=1e-9, atol=1e-9)


def test_the_second_operator_takes_it_from_disk(cache, monkeypatch):
    first = make().svd
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(torch.linalg, "svd", None)

    again = make(svd_tolerance=0.1).svd  # the tolerance cuts what is stored, whole

    k = again.singular_values.numel()
    assert torch.equal(first.singular_values[:, :k], again.singular_values)
    with pytest.raises(TypeError, match="NoneType"):
        _ = registry.get_operator("radon", image_shape=(1, 8, 8), angles=5).svd  # another geometry is not there


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "other key"])
def test_a_damaged_file_is_made_anew(cache, harm):
    expected = make().svd.singular_values
    (path,) = cache.iterdir()
    content = path.read_bytes()
    if harm == "other key":
        content = content.replace(b"8 x 8, ", b"8 x 9, ")
    damaged = {"truncated": content[:-100], "flipped": content[:-9] + b"\x7f" + content[-8:], "empty": b""}
    path.write_bytes(damaged.get(harm, content))

    with pytest.warns(CacheWarning, match="made anew"):
        found = make().svd.singular_values

    torch.testing.assert_close(found, expected)
    _ = make().svd  # the file is whole again: no warning


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SCOREPLUG_CACHE", str(blocked / "below"))

    with pytest.warns(CacheWarning, match="cannot be written"):
        svd = make().svd

    assert svd.singular_values.numel() > 0


def test_without_the_variable_it_is_the_users_cache_directory(monkeypatch):
    monkeypatch.delenv("SCOREPLUG_CACHE")

    assert _cache.folder().name == "scoreplug"


def test_a_decomposition_of_hours_is_refused():
    A = registry.get_operator("radon", image_shape=(1, 256, 256), angles=180)
    assert 256 * 256 * 180 * 363 > MAX_SVD_ENTRIES

    with pytest.raises(ValueError, match="would take hours"):
        _ = A.svd

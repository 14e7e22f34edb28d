"""radon's pseudoinverse and its truncated decomposition, and the disk that the latter is kept on."""

import pytest
import torch

from scoreplug import registry
from scoreplug.operator import matrix_of
from scoreplug_builtin.operators import _cache
from scoreplug_builtin.operators._cache import CacheWarning
from scoreplug_builtin.operators.radon import MAX_SVD_ENTRIES


def make(**params):
    return registry.get_operator("radon", **{"image_shape": (1, 8, 8), "angles": 6} | params)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(A):
    """U, s and V of one channel as matrices."""
    svd = A.svd
    k = svd.singular_values.numel()
    unit = torch.eye(k, dtype=torch.float64).reshape(k, 1, k)
    return svd.U(unit).flatten(1).T, svd.singular_values.flatten(), svd.V(unit).flatten(1).T


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-10])
def test_pinv_meets_exact_data_to_its_tolerance(tolerance):
    """|A A^+ y - y| <= tolerance |y| for y in the range of A, each sample by itself."""
    A = make(pinv_tolerance=tolerance)
    y = A(draw(3, 1, 8, 8) * torch.tensor([1.0, 1e-3, 1e3], dtype=torch.float64).reshape(3, 1, 1, 1))

    residual = (A(A.pinv(y)) - y).flatten(1).norm(dim=1)

    # the recursive residual drifts from the true one by rounding, 1e-13 at most
    assert bool((residual <= (tolerance + 1e-13) * y.flatten(1).norm(dim=1)).all())


def test_pinv_in_single_precision_stops_where_its_rounding_does():
    """A tolerance below a hundred roundings is not met, nor waited for."""
    A = make(pinv_tolerance=1e-12)
    y = A(draw(1, 1, 8, 8)).float()

    x = A.pinv(y)

    assert x.dtype == torch.float32
    # 100 eps, and as much for the drift of the recursive residual
    assert float((A(x) - y).norm() / y.norm()) <= 200 * torch.finfo(torch.float32).eps


def test_a_coarse_tolerance_amplifies_less_noise():
    """What noise alone turns into grows as the tolerance falls, up to |n| over the smallest singular value."""
    noise = draw(1, 1, 6, 12)

    sizes = [float(make(pinv_tolerance=tolerance).pinv(noise).norm()) for tolerance in (0.3, 1e-2, 1e-4, 1e-8)]

    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[0]
    assert sizes[-1] == pytest.approx(float((torch.linalg.pinv(matrix_of(make())) @ noise.flatten()).norm()), rel=1e-4)


@pytest.mark.parametrize("tolerance", [0.3, 1e-2])
def test_the_truncated_svd_leaves_out_what_is_below_its_tolerance(tolerance):
    """|A - U S V^T| is the largest singular value left out, below tolerance times the norm."""
    A = make(svd_tolerance=tolerance)
    M, (U, s, V) = matrix_of(A), parts(A)
    all_of_them = torch.linalg.svdvals(M)

    left_out = torch.linalg.matrix_norm(M - U @ torch.diag(s) @ V.T, 2)

    assert len(s) == int((all_of_them > tolerance * all_of_them[0]).sum()) < len(all_of_them)
    # LAPACK's backward error, a few eps times the norm of 9
    torch.testing.assert_close(left_out, all_of_them[len(s)], rtol=0, atol=1e-12)
    assert float(left_out) <= tolerance * float(s[0])


def test_a_rank_gives_the_leading_singular_values():
    """The same as the whole decomposition's, in the same order, found without making the dense matrix."""
    U, s, V = parts(make(svd_rank=7))
    whole_U, whole_s, whole_V = parts(make())

    assert len(s) == 7
    # ARPACK works to rounding of s^2: eps times the square of the ratio of norm and gap, here below 1e3
    torch.testing.assert_close(s, whole_s[:7], rtol=1e-10, atol=0)
    torch.testing.assert_close(
        U @ torch.diag(s) @ V.T, whole_U[:, :7] @ torch.diag(whole_s[:7]) @ whole_V[:, :7].T, rtol=0, atol=1e-9
    )
    torch.testing.assert_close(V.T @ V, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(U.T @ U, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_rank_beyond_the_matrix_gives_all():
    """There are no more than it has rows."""
    assert torch.equal(make(svd_rank=10_000).svd.singular_values, make().svd.singular_values)


def test_channels_are_decomposed_alike():
    """One matrix, k coordinates in each channel."""
    one, two = make().svd, make(image_shape=(2, 8, 8)).svd
    x = draw(3, 2, 8, 8)

    assert torch.equal(two.singular_values, one.singular_values.expand(2, -1))
    # products of matrices of other sizes round otherwise
    torch.testing.assert_close(two.Vt(x)[:, 1:], one.Vt(x[:, 1:]), rtol=0, atol=1e-13)


def test_the_second_operator_takes_it_from_disk(cache, monkeypatch):
    """Whatever its tolerance, which cuts what is stored, whole; another geometry or rank is not there."""
    first = make().svd
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(torch.linalg, "svd", None)

    again = make(svd_tolerance=0.1).svd

    k = again.singular_values.numel()
    assert torch.equal(first.singular_values[:, :k], again.singular_values)
    for other in ({"angles": 5}, {"detectors": 11}, {"image_shape": (1, 8, 7)}):
        with pytest.raises(TypeError, match="NoneType"):
            _ = make(**other).svd
    _ = make(svd_rank=7).svd
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("harm", ["truncated", "flipped", "empty", "other key", "folder"])
def test_a_damaged_file_is_made_anew(cache, harm):
    """With a warning, and the file is whole again: the next one takes it without."""
    expected = make().svd.singular_values
    (path,) = cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[:-100],
            "flipped": content[:-9] + b"\x7f" + content[-8:],
            "empty": b"",
            "other key": content.replace(b"8 x 8, ", b"8 x 9, "),
            "folder": content,
        }[harm]
    )
    if harm == "folder":
        path.unlink()
        path.mkdir()

    with pytest.warns(CacheWarning) as caught:
        found = make().svd.singular_values

    messages = [str(warning.message) for warning in caught]
    assert "made anew" in messages[0]
    assert len(messages) == (2 if harm == "folder" else 1)  # a folder is in the way of the new file, too
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if harm != "folder":
        assert torch.equal(make().svd.singular_values, expected)


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    """It is computed in memory; the warning says what to do."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SCOREPLUG_CACHE", str(blocked / "below"))

    with pytest.warns(CacheWarning, match="cannot be written.* SCOREPLUG_CACHE names another folder"):
        svd = make().svd

    assert svd.singular_values.numel() > 0


def test_nothing_but_the_result_is_left_in_the_folder(cache):
    """The file appears whole, by a rename; what it was written to is gone."""
    _ = make().svd

    assert [path.suffix for path in cache.rglob("*")] == [".safetensors"]


def test_without_the_variable_it_is_the_users_cache_directory(monkeypatch):
    """An empty one counts as none."""
    monkeypatch.setenv("SCOREPLUG_CACHE", "")

    assert _cache.folder().name == "scoreplug"


@pytest.mark.parametrize("rank", [None, 900], ids=["whole", "leading"])
def test_a_decomposition_of_hours_is_refused(rank):
    """Before the matrix is made; the message has the rank that would be taken."""
    A = make(image_shape=(1, 256, 256), angles=180, svd_rank=rank)
    m, n = 180 * 363, 256 * 256
    assert min(m * n, (m + n) * 900) > MAX_SVD_ENTRIES

    with pytest.raises(
        ValueError, match=rf"would take .* hours .* \(svd_rank, up to {MAX_SVD_ENTRIES // (m + n)} here"
    ):
        _ = A.svd

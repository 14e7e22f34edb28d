"""The dense matrix operator."""

import numpy as np
import pytest
import torch

from scoreplug import registry

M = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.5, 0.0, 3.0, 1.0]], dtype=torch.float64)


def matrix(source, image_shape=(1, 2, 2)):
    return registry.get_operator("matrix", image_shape=image_shape, matrix=source)


def test_acts_on_the_image_row_by_row():
    """y = M (x_00, x_01, x_10, x_11)."""
    y = matrix(M)(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]], dtype=torch.float64))

    assert y.tolist() == [[1 + 20 - 1000, 0.5 + 300 + 1000]]


def test_acts_on_channel_after_channel():
    """The second channel follows the first."""
    y = matrix(M, image_shape=(2, 1, 2))(torch.tensor([[[[1.0, 10.0]], [[100.0, 1000.0]]]], dtype=torch.float64))

    assert y.tolist() == [[1 + 20 - 1000, 0.5 + 300 + 1000]]


@pytest.mark.parametrize("kind", ["tensor", "single", "rows", "lists", "npy", "npz", "npz-named"])
def test_is_read_from_every_source(kind, tmp_path):
    """Tensors, rows of numbers (TOML) and files give the same matrix."""
    np.save(tmp_path / "m.npy", M.numpy())
    np.savez(tmp_path / "one.npz", anything=M.numpy())
    np.savez(tmp_path / "two.npz", other=np.zeros(3), matrix=M.numpy())
    sources = {
        "tensor": M,
        "single": M.float(),
        "rows": tuple(map(tuple, M.tolist())),
        "lists": M.tolist(),
        "npy": str(tmp_path / "m.npy"),
        "npz": str(tmp_path / "one.npz"),
        "npz-named": str(tmp_path / "two.npz"),
    }
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    assert torch.equal(matrix(sources[kind])(x), matrix(M)(x))


def test_does_not_follow_later_changes_of_the_tensor():
    """The operator keeps a copy."""
    source = M.clone()
    A = matrix(source)
    source.zero_()

    assert A.norm == pytest.approx(float(torch.linalg.matrix_norm(M, 2)), rel=1e-14)  # LAPACK, twice


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (M[:, :3], r"matrix must be \(m, 4\) for images of shape \(1, 2, 2\) \(got \(2, 3\)\)"),
        (M[0], r"matrix must be \(m, 4\)"),
        (M[:0], r"matrix must be \(m, 4\)"),
        (M * float("nan"), "matrix has 8 values that are NaN or infinite"),
        (M.to(torch.complex128), "matrix must be real"),
        (((1.0, 2.0, 3.0, 4.0), (1.0,)), "matrix must be a rectangular array of real numbers"),
        ("matrix.txt", r"matrix must be .*a path to a .npy or .npz file \(got 'matrix.txt'\)"),
        ("missing.npy", "matrix cannot be read from 'missing.npy'"),
        (3, "matrix must be string or Tensor"),
    ],
    ids=["columns", "vector", "empty", "nan", "complex", "ragged", "suffix", "missing", "number"],
)
def test_what_is_no_matrix_is_refused(source, message):
    """At construction, with the shape or value that was given."""
    with pytest.raises(ValueError, match=message):
        matrix(source)


def test_a_file_with_several_arrays_needs_the_name(tmp_path):
    """Which of them is meant must not be guessed."""
    np.savez(tmp_path / "two.npz", a=M.numpy(), b=M.numpy())

    with pytest.raises(ValueError, match="holds a, b; name the array 'matrix'"):
        matrix(str(tmp_path / "two.npz"))


def test_a_file_of_pickles_is_not_opened(tmp_path):
    """Unpickling runs code."""
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object))

    with pytest.raises(ValueError, match="cannot be read"):
        matrix(str(tmp_path / "evil.npy"))

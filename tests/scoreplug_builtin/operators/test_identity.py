"""The identity operator."""

import torch

from scoreplug import registry


def test_everything_is_the_identity():
    """A = A^T = A^+ = U = V = I, and (a I + b I)^-1 r = r / (a + b)."""
    A = registry.get_operator("identity", image_shape=(2, 3, 5))
    x = torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    for same in (A, A.adjoint, A.pinv, A.svd.U, A.svd.Ut, A.svd.V, A.svd.Vt):
        assert torch.equal(same(x), x)
    assert A.norm == 1
    assert torch.equal(A.svd.singular_values, torch.ones(2, 3, 5, dtype=torch.float64))
    torch.testing.assert_close(A.solve(x, a=0.5, b=1.5), x / 2, rtol=1e-15, atol=0)  # one multiplication

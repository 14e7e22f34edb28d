"""K normal distributions under the perturbation kernel, in closed form."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Normals:
    """N(m_k, S_k), k = 1..K, each with S_k = Q_k diag(l_k) Q_k^T.

    Under x_t = alpha x_0 + sigma z they become N(alpha m_k, P_k) with P_k = alpha^2 S_k + sigma^2 I.

    Args:
        mean: m_k, (K, n).
        eigenvalues: l_k, (K, n), or (K, 1) if S_k is a multiple of I; 1 in place of K if they share one covariance.
        basis: Q_k, (K, n, n), or None if S_k is diagonal; 1 in place of K likewise.
    """

    mean: Tensor
    eigenvalues: Tensor
    basis: Tensor | None

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> Normals:
        """From means (K, n) and covariances: variances (K,), or matrices (K, n, n); one for all with 1 in place of K.

        Raises:
            ValueError: if a matrix is not symmetric, or a covariance not positive definite.
        """
        if covariance.ndim == 1:
            eigenvalues, basis = covariance[:, None], None
        else:
            if not torch.allclose(covariance, covariance.mT, rtol=1e-10, atol=0):
                raise ValueError("covariance must be symmetric")
            eigenvalues, basis = torch.linalg.eigh(covariance)
        if bool((eigenvalues <= 0).any()):
            raise ValueError(
                f"covariance must be positive definite (smallest eigenvalue {float(eigenvalues.min()):.3g})"
            )
        return cls(mean=mean, eigenvalues=eigenvalues, basis=basis)

    def at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Perturbed:
        """The distributions at a noise level, for x of shape (B, n) and coefficients () or (B,)."""
        alpha, sigma = (c.to(x).reshape(-1, 1, 1) for c in (alpha, sigma))
        variances = alpha**2 * self.eigenvalues + sigma**2  # of P_k, (B or 1, K, n or 1)
        w = self.to_basis(x[:, None] - alpha * self.mean)
        return Perturbed(normals=self, alpha=alpha, variances=variances, w=w)

    def denoising_error(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """sqrt(tr C / n), C = sigma^2 S_k P_k^{-1} being the covariance of x_0 given x, of the coefficients' shape and
        K."""
        alpha, sigma = alpha[..., None, None], sigma[..., None, None]
        C = sigma**2 * self.eigenvalues / (alpha**2 * self.eigenvalues + sigma**2)
        return C.mean(-1).sqrt()

    def covariance(self) -> Tensor:
        """S_k, (K, n, n), or (1, n, n)."""
        n = self.mean.shape[1]
        if self.basis is None:
            return torch.diag_embed(self.eigenvalues.expand(-1, n))
        return torch.einsum("kij,kj,klj->kil", self.basis, self.eigenvalues, self.basis)

    def to_basis(self, x: Tensor) -> Tensor:
        """Q_k^T x_k, (B, K, n)."""
        return x if self.basis is None else torch.einsum("kji,bkj->bki", self.basis.expand(x.shape[1], -1, -1), x)

    def from_basis(self, w: Tensor) -> Tensor:
        """Q_k w_k, (B, K, n)."""
        return w if self.basis is None else torch.einsum("kij,bkj->bki", self.basis.expand(w.shape[1], -1, -1), w)


@attrs.frozen(kw_only=True, eq=False)
class Perturbed:
    """Closed forms at x and a noise level, with w = Q_k^T (x - alpha m_k)."""

    normals: Normals
    alpha: Tensor
    variances: Tensor
    w: Tensor

    def log_density(self) -> Tensor:
        """log N(x; alpha m_k, P_k), (B, K)."""
        n = self.w.shape[2]
        log_det = self.variances.log().expand(-1, -1, n).sum(2)
        return -0.5 * (n * math.log(2 * math.pi) + log_det + (self.w**2 / self.variances).sum(2))

    def score(self) -> Tensor:
        """-P_k^{-1} (x - alpha m_k), (B, K, n)."""
        return -self.normals.from_basis(self.w / self.variances)

    def denoise(self) -> Tensor:
        """m_k + alpha S_k P_k^{-1} (x - alpha m_k), (B, K, n). Tweedie's formula would cancel at large noise levels."""
        return self.normals.mean + self.normals.from_basis(
            self.alpha * self.normals.eigenvalues / self.variances * self.w
        )

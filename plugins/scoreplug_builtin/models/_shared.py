r"""K normal distributions that share one covariance, mixed: everything about the mixture is a few matrix products.

    p_t(x) = sum_k w_k N(x; alpha m_k, P),    P = alpha^2 S + sigma^2 I = Q diag(alpha^2 l + sigma^2) Q^T
    r_k = softmax_k(log w_k + log N(x; alpha m_k, P)),    mbar = sum_k r_k m_k
    score = -P^{-1} (x - alpha mbar)
    x0 = mbar + alpha S P^{-1} (x - alpha mbar)
    d x0 / dx = alpha S P^{-1} + alpha sigma^2 P^{-1} (sum_k r_k (m_k - mbar)(m_k - mbar)^T) P^{-1}

A thousand samples of 800 pixels and 25 components would take 160 MB for each array of (samples, components, pixels);
here no such array is made.
"""

from __future__ import annotations

import functools
import math

import attrs
from torch import Tensor

from scoreplug_builtin.models._normals import Normals


@attrs.frozen(kw_only=True, eq=False)
class SharedMixture:
    """The mixture sum_k w_k N(m_k, S).

    Squares are expanded, |x - m|^2 = |x|^2 - 2 x.m + |m|^2, which loses digits; all sums are float64 for that reason.

    Args:
        normals: m_k, (K, n), and one covariance: eigenvalues (1, n) or (1, 1), basis (1, n, n) or None.
        log_weights: log w_k, (K,).
    """

    normals: Normals
    log_weights: Tensor

    @functools.cached_property
    def means(self) -> Tensor:
        """Q^T m_k, (K, n), float64."""
        return self._to_basis(self.normals.mean.double())

    def at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> MixtureAt:
        """The mixture at a noise level, for x of shape (B, n) and coefficients () or (B,)."""
        a, s = (c.to(x.device).double().reshape(-1, 1) for c in (alpha, sigma))
        variances = a**2 * self.normals.eigenvalues.double() + s**2
        return MixtureAt(mixture=self, x=x, w=self._to_basis(x.double()), alpha=a, sigma=s, variances=variances)

    def _to_basis(self, v: Tensor) -> Tensor:
        """Q^T v, (B, n)."""
        return v if self.normals.basis is None else v @ self.normals.basis[0].double()

    def _from_basis(self, w: Tensor) -> Tensor:
        """Q w, (B, n)."""
        return w if self.normals.basis is None else w @ self.normals.basis[0].double().T


@attrs.frozen(kw_only=True, eq=False)
class MixtureAt:
    """Closed forms at x and a noise level, with w = Q^T x and the variances alpha^2 l + sigma^2, (B or 1, n or 1)."""

    mixture: SharedMixture
    x: Tensor
    w: Tensor
    alpha: Tensor
    sigma: Tensor
    variances: Tensor

    @functools.cached_property
    def joint(self) -> Tensor:
        """log w_k + log N(x; alpha m_k, P), (B, K)."""
        n, means, weighted = self.w.shape[1], self.mixture.means, self.w / self.variances
        far = (
            (means**2 / self.variances).sum(1)
            if len(self.variances) == 1
            else (1 / self.variances).expand(-1, n) @ (means**2).T
        )
        squares = (self.w * weighted).sum(1, keepdim=True) - 2 * self.alpha * weighted @ means.T + self.alpha**2 * far
        log_det = self.variances.log().expand(-1, n).sum(1, keepdim=True)
        return self.mixture.log_weights.double() - 0.5 * (n * math.log(2 * math.pi) + log_det + squares)

    @functools.cached_property
    def responsibility(self) -> Tensor:
        """r_k, (B, K)."""
        return self.joint.softmax(1)

    @functools.cached_property
    def deviation(self) -> Tensor:
        """Q^T P^{-1} (x - alpha mbar), (B, n)."""
        return (self.w - self.alpha * self.responsibility @ self.mixture.means) / self.variances

    def log_density(self) -> Tensor:
        """log p_t(x), (B,)."""
        return self.joint.logsumexp(1).to(self.x)

    def score(self) -> Tensor:
        """(B, n)."""
        return -self.mixture._from_basis(self.deviation).to(self.x)

    def denoise(self) -> Tensor:
        """x0, (B, n)."""
        mean = self.responsibility @ self.mixture.means
        eigenvalues = self.mixture.normals.eigenvalues.double()
        return self.mixture._from_basis(mean + self.alpha * eigenvalues * self.deviation).to(self.x)

    def vjp(self, v: Tensor) -> Tensor:
        """(d x0 / dx)^T v, (B, n); the Jacobian is symmetric."""
        u = self.mixture._to_basis(v.double()) / self.variances
        along = u @ self.mixture.means.T  # m_k . P^{-1} v
        r = self.responsibility
        between = (r * (along - (r * along).sum(1, keepdim=True))) @ self.mixture.means
        eigenvalues = self.mixture.normals.eigenvalues.double()
        return self.mixture._from_basis(self.alpha * (eigenvalues * u + self.sigma**2 * between / self.variances)).to(v)

"""Every metric that a problem allows, by name."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from scoreplug.bench import metrics
from scoreplug.protocols import HasLogEvidence, HasLogPosterior, HasModes, HasMoments
from scoreplug.run.baseline import baseline

LARGEST = torch.finfo(torch.float64).max
STATISTICS = 4
"""Random projections whose ranks simulation-based calibration looks at."""


@attrs.frozen(kw_only=True, eq=False)
class References:
    """Independent sets of exact samples, each (n, *shape): to compare with, and to know what that gives at best.

    One set would lend its own error to every method that is compared with it.
    """

    sets: tuple[Tensor, ...]

    @property
    def samples(self) -> Tensor:
        """The first set."""
        return self.sets[0]

    @functools.cached_property
    def floor(self) -> np.ndarray:
        """Sliced Wasserstein distances between all pairs of sets, ascending."""
        return np.sort([metrics.sliced_wasserstein(a, b) for a, b in itertools.combinations(self.sets, 2)])

    def distance(self, x: Tensor) -> float:
        """Mean sliced Wasserstein distance of samples from the sets."""
        return float(np.mean([metrics.sliced_wasserstein(x, each) for each in self.sets]))


def evaluate(
    problem: Any, x: Tensor, references: References | None, *, report: dict[str, float], c2st: bool
) -> dict[str, float | None]:
    """Metrics of n samples, of what the problem knows.

    - Of exact samples: sliced_wasserstein, its floor and the floor's worst pair, energy_distance, mmd_squared and
      mmd_p_value, on request c2st.
    - Of moments: mean_error, gaussian_wasserstein, spread_ratio, mmse_gap.
    - Of modes: mode_weights_tv and its floor.
    - Of a log posterior: ksd_squared.
    - Of the evidence, if the sampler estimates it: log_evidence_error.
    - Of the truth alone: crps, energy_score, spread_skill, coverage_50 and coverage_90 with their targets, residual;
      and the metrics of images if the problem or its prior has a `data_range`.

    What has no value, such as the distance of samples that overflow, is left out with a warning.

    Args:
        problem: the problem.
        x: (n, *shape), n >= 2.
        references: exact samples, if there are any.
        report: numbers that the sampler left.
        c2st: also train the classifier.
    """
    x = x.detach().double().cpu()
    parts: list[tuple[str, Callable[[], dict[str, float | None]]]] = [("truth", lambda: _against_truth(problem, x))]
    if references is not None:
        parts.append(("the distance to exact samples", lambda: _distance(x, references)))
        parts.append(("tests against exact samples", lambda: _against_samples(x, references, c2st=c2st)))
    if isinstance(problem, HasMoments):
        parts.append(("moments", lambda: _against_moments(problem, x)))
    if isinstance(problem, HasModes):
        parts.append(("modes", lambda: _against_modes(problem, x)))
    if isinstance(problem, HasLogPosterior):
        parts.append(("log posterior", lambda: _against_score(problem, x, references)))
    if isinstance(problem, HasLogEvidence) and "log_evidence" in report:
        parts.append(("evidence", lambda: {"log_evidence_error": report["log_evidence"] - problem.log_evidence}))

    found: dict[str, float | None] = {}
    for what, compute in parts:
        try:
            found |= compute()
        except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            # collapsed or exploded samples have no such number; the others are worth having
            warnings.warn(f"no metrics of {what} for these samples: {error}", stacklevel=2)
    return {name: None if value is None else float(value) for name, value in found.items()}


def ranks_of(problem: Any, x: Tensor, *, seed: int) -> dict[str, int]:
    """The rank of the truth among the samples, in 0, ..., n; the seed breaks ties.

    The statistics are random projections; the log posterior, if it is known (coverage of regions of highest density);
    and, if A is linear, the distance to a reconstruction from y alone (TARP: it depends on y, so that samples of the
    prior do not pass).
    """
    both = torch.cat([problem.truth[None].to(x), x]).double().cpu()
    statistics = {f"projection {i + 1}": s for i, s in enumerate(metrics.project(both, STATISTICS).T)}
    if isinstance(problem, HasLogPosterior):
        with torch.no_grad():
            density = problem.log_posterior(both)
        # far away it overflows: no density at all, which is a rank like any other
        statistics["log posterior"] = density.nan_to_num(nan=-math.inf).clamp_min(-LARGEST).numpy()
    reference = baseline(problem.measurement)
    if reference is not None:
        distance = (both - reference.x.to(both)).flatten(1).norm(dim=1)
        statistics["distance"] = distance.clamp_max(LARGEST).numpy()
    return {name: int(metrics.sbc_ranks(s[None, 1:], s[:1], seed=seed)[0]) for name, s in statistics.items()}


def _distance(x: Tensor, references: References) -> dict[str, float | None]:
    return {
        "sliced_wasserstein": references.distance(x),
        "sliced_wasserstein_floor": float(references.floor.mean()),
        "sliced_wasserstein_floor_worst": float(references.floor[-1]),
    }


def _against_samples(x: Tensor, references: References, *, c2st: bool) -> dict[str, float | None]:
    exact = references.samples
    mmd = metrics.mmd(x, exact)
    found: dict[str, float | None] = {
        "energy_distance": metrics.energy_distance(x, exact),
        "mmd_squared": mmd.squared,
        "mmd_p_value": mmd.p_value,
    }
    return found | ({"c2st": metrics.c2st(x, exact)} if c2st else {})


def _against_moments(problem: Any, x: Tensor) -> dict[str, float | None]:
    mean, covariance = problem.moments
    return {
        "mean_error": metrics.mean_error(x, mean, covariance),
        "gaussian_wasserstein": metrics.gaussian_wasserstein(x, mean, covariance),
        "spread_ratio": metrics.spread_ratio(x, covariance),
        "mmse_gap": metrics.mmse_gap(x, mean, problem.truth),
    }


def _against_modes(problem: HasModes, x: Tensor) -> dict[str, float | None]:
    found = metrics.mode_weights_tv(problem.modes(x), problem.mode_weights)
    return {"mode_weights_tv": found.tv, "mode_weights_tv_floor": found.tv_floor}


def _against_score(problem: HasLogPosterior, x: Tensor, references: References | None) -> dict[str, float | None]:
    """With the kernel's length from exact samples, if there are some: one length for all methods."""
    scale = None if references is None else metrics.mmd(references.sets[1], references.samples, permutations=0).scale
    return {
        "ksd_squared": metrics.ksd(x, metrics.gradient_of(problem.log_posterior), scale=scale, bootstraps=0).squared
    }


def _against_truth(problem: Any, x: Tensor) -> dict[str, float | None]:
    truth = problem.truth.detach().double().cpu()
    found: dict[str, float | None] = {
        "crps": metrics.crps(x, truth),
        "energy_score": metrics.energy_score(x, truth),
        "spread_skill": metrics.spread_skill(x, truth),
    }
    limits = getattr(problem, "data_range", None) or getattr(problem.prior, "data_range", None)
    if limits is not None:
        return found | metrics.image_metrics(x, problem.measurement, truth, limits)
    for level in (0.5, 0.9):
        interval = metrics.interval_coverage(x, truth, level=level)
        name = f"{100 * level:.0f}"
        found |= {f"coverage_{name}": interval.covered, f"target_{name}": interval.target}
    return found | {"residual": _residual(problem, x)}


def _residual(problem: Any, x: Tensor) -> float | None:
    """The average of |y - A x| / (noise_std sqrt(m)) over samples; None without noise."""
    y = problem.measurement
    if y.noise_std == 0:
        return None
    with torch.no_grad():
        r = y.residual(x.to(y.data)).double().flatten(1)
    return float(r.norm(dim=1).mean()) / (y.noise_std * math.sqrt(r.shape[1]))

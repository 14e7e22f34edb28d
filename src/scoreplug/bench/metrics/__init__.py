"""Metrics of posterior correctness: pure functions of samples (n, *shape), in float64.

Each states what it is for exact samples, since for finite sets that is hardly ever 0. What is random in them comes from
a generator seeded by the argument `seed`.
"""

from scoreplug.bench.metrics.calibration import (
    Coverage,
    Tarp,
    Uniformity,
    hpd_coverage,
    hpd_coverage_of_ranks,
    project,
    rank_uniformity,
    references_near,
    sbc_ranks,
    tarp,
    tarp_of_ranks,
)
from scoreplug.bench.metrics.classifier import c2st
from scoreplug.bench.metrics.evidence import (
    EvidenceError,
    effective_sample_size,
    log_evidence_error,
    mmse_gap,
    weight_entropy,
)
from scoreplug.bench.metrics.forecast import IntervalCoverage, crps, energy_score, interval_coverage, spread_skill
from scoreplug.bench.metrics.images import image_metrics, lpips
from scoreplug.bench.metrics.kernels import Discrepancy, energy_distance, gradient_of, ksd, mmd
from scoreplug.bench.metrics.moments import (
    ModeWeights,
    bures_wasserstein,
    gaussian_wasserstein,
    mean_error,
    mode_weights_tv,
    spread_ratio,
)
from scoreplug.bench.metrics.wasserstein import Floor, sliced_wasserstein, wasserstein_floor

__all__ = [
    "Coverage",
    "Discrepancy",
    "EvidenceError",
    "Floor",
    "IntervalCoverage",
    "ModeWeights",
    "Tarp",
    "Uniformity",
    "bures_wasserstein",
    "c2st",
    "crps",
    "effective_sample_size",
    "energy_distance",
    "energy_score",
    "gaussian_wasserstein",
    "gradient_of",
    "hpd_coverage",
    "hpd_coverage_of_ranks",
    "image_metrics",
    "interval_coverage",
    "ksd",
    "log_evidence_error",
    "lpips",
    "mean_error",
    "mmd",
    "mmse_gap",
    "mode_weights_tv",
    "project",
    "rank_uniformity",
    "references_near",
    "sbc_ranks",
    "sliced_wasserstein",
    "spread_ratio",
    "spread_skill",
    "tarp",
    "tarp_of_ranks",
    "wasserstein_floor",
    "weight_entropy",
]

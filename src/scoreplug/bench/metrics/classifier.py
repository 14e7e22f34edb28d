"""Classifier two-sample test: how well a trained classifier tells samples from exact ones.

The cross-validated accuracy of a network that is trained to tell the two sets apart: 0.5 if it cannot, 1 if it always
can.  After Lueckmann et al., whose network has two hidden layers of 10 d units and is trained until its loss settles.
Here a layer has at most `width` units, and data of more than `features` dimensions is first projected onto as many
random orthonormal directions: 10 d units would be 64 million weights at d = 800.  Training is 20 passes of 16 batches
for every n: on shifted and on narrow Gaussians that finds as much as training to the end, which learns the training
data by heart, and for n = 100 more than early stopping, which stops before anything is learned.  It is a lower bound of
what a classifier could do.

References:
    Lopez-Paz, Oquab: Revisiting classifier two-sample tests. ICLR 2017.
    Lueckmann, Boelts, Greenberg, Goncalves, Macke: Benchmarking simulation-based inference. AISTATS 2021.
"""

from __future__ import annotations

import warnings

import numpy as np

from scoreplug.bench.metrics._arrays import Array, two_sets


def c2st(
    samples: Array, reference: Array, *, folds: int = 5, features: int = 64, width: int = 128, seed: int = 0
) -> float:
    """Accuracy of the classifier, in [0, 1]; 0.5 is ideal. Needs scikit-learn.

    With n samples of each set, equal distributions give 0.5 +- 0.5 / sqrt(2 n) (one standard deviation).

    Args:
        samples: (n, *shape), n >= 2 folds.
        reference: exact samples, (n, *shape), equally many. Their mean and standard deviation scale both sets.
        folds: of the stratified cross-validation.
        features: largest dimension that the classifier sees.
        width: largest number of units in a hidden layer.
        seed: of the projections, the folds and the training.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    x, y = two_sets(samples, reference, least=2 * folds)
    if len(x) != len(y):
        raise ValueError(
            f"the sets must be equally large, or guessing the larger one beats 0.5 (got {len(x)} and {len(y)})"
        )
    both, d = np.concatenate([x, y]), x.shape[1]
    if d > features:
        both = both @ _orthonormal(d, features, seed)
    both = _standardise(both, both[len(x) :])
    units = min(10 * both.shape[1], width)
    batch = max(1, 2 * len(x) * (folds - 1) // folds // 16)
    classifier = MLPClassifier((units, units), max_iter=20, batch_size=batch, random_state=seed)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    label = np.repeat([0, 1], len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training is short on purpose
        return float(cross_val_score(classifier, both, label, cv=splits, scoring="accuracy").mean())


def _orthonormal(d: int, count: int, seed: int) -> np.ndarray:
    """`count` random orthonormal directions, (d, count)."""
    q: np.ndarray = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, count)))[0]
    return q


def _standardise(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """x in units of the reference's standard deviations; a coordinate that is constant there is only centred."""
    mean, std = reference.mean(0), reference.std(0)
    rounding = 1e-12 * np.abs(reference).max(0)
    scaled: np.ndarray = (x - mean) / np.where(std > rounding, std, 1.0)
    return scaled

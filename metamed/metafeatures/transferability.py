"""How well a source suits a target, guessed without training: scores of the target's frozen embeddings and labels.

Embeddings (n, d) come from the source's network, labels are integers (n,). Higher is better in all. None is good enough
to choose by alone (docs/how-it-recommends.md): they are meant as features of a pair.
"""

from __future__ import annotations

import numpy as np

from metamed.dataset import spread
from metamed.errors import MetamedError
from metamed.metafeatures.landmarking import balanced_accuracy

ROWS = 2000
NEIGHBOURS = 5
KEPT_ENERGY, PER_CLASS = 0.8, 5  # of N-LEEP: variance kept by the principal components, Gaussians for each class
SMALL = 1e-6


def log_me(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Largest log evidence, per sample, of Bayesian linear regression on class membership, mean over the classes.

    unit: nats; range: -inf to inf; cost: embeddings; needs: target embeddings, labels;
    source: You et al. 2021 (LogME), arXiv 2102.11005.
    """
    embeddings, one_hot = _checked(embeddings, labels)
    left, singular, _ = np.linalg.svd(embeddings, full_matrices=False)
    return float(np.mean([_evidence(left, singular**2, y, embeddings.shape) for y in one_hot.T]))


def _evidence(left: np.ndarray, energy: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> float:
    """log p(y) / n at the fixed point of MacKay's updates of alpha (precision of weights) and beta (of noise)."""
    n, d = shape
    along = (left.T @ y) ** 2
    outside = max(float(y @ y - along.sum()), 0.0)  # what no direction of the embeddings can explain
    alpha, beta = 1.0, 1.0
    for _ in range(1000):
        ratio = alpha / beta
        gamma = (energy / (energy + ratio)).sum()
        weights = (energy * along / (energy + ratio) ** 2).sum()
        residual = outside + (along * (ratio / (energy + ratio)) ** 2).sum()
        alpha, beta = gamma / max(weights, 1e-12), max(n - gamma, 1e-12) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= 1e-6 * ratio:
            break
    ratio = alpha / beta
    weights = (energy * along / (energy + ratio) ** 2).sum()
    residual = outside + (along * (ratio / (energy + ratio)) ** 2).sum()
    log_det = np.log(alpha + beta * energy).sum() + (d - len(energy)) * np.log(alpha)
    total = d * np.log(alpha) + n * np.log(beta / (2 * np.pi)) - beta * residual - alpha * weights - log_det
    return total / (2 * n)


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean log of the expected empirical prediction: target labels guessed through the probabilities (n, classes) that
    the source's own head gives its own classes.

    unit: nats; range: -inf to 0; cost: embeddings; needs: source predictions, labels;
    source: Nguyen et al. 2020 (LEEP), arXiv 2002.12462.
    """
    probabilities, one_hot = _checked(probabilities, labels)
    joint = one_hot.T @ probabilities
    of_source = joint / np.maximum(joint.sum(axis=0), 1e-300)
    expected = (probabilities * (one_hot @ of_source)).sum(axis=1)
    return float(np.log(np.maximum(expected, 1e-300)).mean())


def n_leep(embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> float:
    """LEEP through the members of a Gaussian mixture of the embeddings instead of source classes: 5 Gaussians a class,
    on the principal components that hold 80 % of the variance.

    unit: nats; range: -inf to 0; cost: embeddings; needs: target embeddings, labels; source: Li et al. 2021 (N-LEEP),
    arXiv 2011.11200.
    """
    embeddings, one_hot = _checked(embeddings, labels)
    centred = embeddings - embeddings.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(singular**2) / max((singular**2).sum(), 1e-300)
    kept = 1 + int(np.searchsorted(share, KEPT_ENERGY))
    points = left[:, :kept] * singular[:kept]
    points = points / max(points.std(), 1e-12)
    k = min(PER_CLASS * one_hot.shape[1], max(1, len(points) // 2))
    return leep(mixture_posteriors(points, k, seed=seed), labels)


def mixture_posteriors(
    points: np.ndarray, k: int, *, seed: int = 0, steps: int = 100, tolerance: float = 1e-3
) -> np.ndarray:
    """Responsibilities (n, k) of a Gaussian mixture with full covariances: k-means++ starts, EM until it stands."""
    posterior = np.eye(k)[_squared(points, _spread_centres(points, k, seed)).argmin(axis=1)]
    before = -np.inf
    for _ in range(steps):
        score = _log_densities(points, posterior)
        top = score.max(axis=1, keepdims=True)
        evidence = top + np.log(np.exp(score - top).sum(axis=1, keepdims=True))
        posterior = np.exp(score - evidence)
        if evidence.mean() - before < tolerance:
            break
        before = evidence.mean()
    return posterior


def _log_densities(points: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """log of weight times density of each point in each Gaussian that fits its responsibilities best, (n, k)."""
    n, d = points.shape
    weight = posterior.sum(axis=0) + 10 * np.finfo(np.float64).eps
    means = posterior.T @ points / weight[:, None]
    score = np.empty_like(posterior)
    for member, (mean, share) in enumerate(zip(means, posterior.T, strict=True)):
        centred = points - mean
        covariance = (share[:, None] * centred).T @ centred / weight[member]
        covariance[np.diag_indices(d)] += SMALL
        root = np.linalg.cholesky(covariance)
        volume = np.log(np.diag(root)).sum() + d * np.log(2 * np.pi) / 2
        score[:, member] = np.log(weight[member] / n) - volume - (np.linalg.solve(root, centred.T) ** 2).sum(axis=0) / 2
    return score


def _spread_centres(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = [points[rng.integers(len(points))]]
    nearest = np.full(len(points), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, _squared(points, centres[-1][None])[:, 0])
        total = nearest.sum()
        chance = nearest / total if total > 0 else np.full(len(points), 1 / len(points))
        centres.append(points[rng.choice(len(points), p=chance)])
    return np.array(centres)


def h_score(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """Trace of the pseudo-inverse covariance of the embeddings times the covariance of the class means.

    unit: none; range: 0 to inf; cost: embeddings; needs: target embeddings, labels; source: Bao et al. 2019 (H-score).
    """
    embeddings, one_hot = _checked(embeddings, labels)
    centred = embeddings - embeddings.mean(axis=0)
    means = one_hot @ ((one_hot.T @ centred) / one_hot.sum(axis=0)[:, None])
    covariance, between = centred.T @ centred / len(centred), means.T @ means / len(centred)
    return float(np.trace(np.linalg.pinv(covariance, rcond=1e-8, hermitian=True) @ between))


def knn_transfer(embeddings: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None) -> float:
    """Balanced accuracy of the five nearest neighbours by cosine, each left out in turn, together with its group.

    unit: share; range: 0 to 1; cost: embeddings; needs: target embeddings, labels; source: arXiv 2503.18528 (k-NN as
    transferability estimator).
    """
    embeddings, one_hot = _checked(embeddings, labels)
    chosen = spread(len(embeddings), ROWS)
    unit = embeddings[chosen] / np.maximum(np.linalg.norm(embeddings[chosen], axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    group = chosen if groups is None else np.asarray(groups)[chosen]
    likeness[group[:, None] == group[None]] = -np.inf
    k = min(NEIGHBOURS, len(chosen) - 1)
    near = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    known = np.isfinite(np.take_along_axis(likeness, near, axis=1))
    votes = np.where(known[:, :, None], one_hot[chosen][near], 0).sum(axis=1)
    votes = votes + 1e-3 * one_hot[chosen][near[:, 0]]  # of equally many votes those of the nearest win
    return balanced_accuracy(one_hot[chosen].argmax(axis=1), votes.argmax(axis=1))


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0)


def _checked(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings as float64 and class membership (n, K); MetamedError where they do not belong together."""
    embeddings, labels = np.asarray(embeddings, np.float64), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise MetamedError(f"labels {labels.shape} do not fit embeddings {embeddings.shape}. Pass (n,) and (n, d)")
    if not np.isfinite(embeddings).all():
        raise MetamedError("embeddings hold missing or infinite values. Leave those rows out, or fill them in")
    classes, code = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise MetamedError(f"labels hold {len(classes)} class. A score of transfer needs two")
    return embeddings, np.eye(len(classes))[code]


SCORES = {f.__name__: f for f in (log_me, n_leep, h_score, knn_transfer, leep)}


def transfer_scores(
    embeddings: np.ndarray, labels: np.ndarray, *, probabilities: np.ndarray | None = None,
    groups: np.ndarray | None = None, seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Every score of a source on a target, by name. LEEP is NaN without the source's class probabilities."""
    return {
        "log_me": log_me(embeddings, labels),
        "n_leep": n_leep(embeddings, labels, seed=seed),
        "h_score": h_score(embeddings, labels),
        "knn_transfer": knn_transfer(embeddings, labels, groups=groups),
        "leep": np.nan if probabilities is None else leep(probabilities, labels),
    }

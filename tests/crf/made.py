"""Images, and plain versions of the lattice, mean field and slopes in numpy and float64."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def photo(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A noisy image, smooth except for an edge: uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / 5 + phase) + np.cos(y / 7 - phase) for phase in (0.0, 1.0, 2.5)]
    smooth = 120 + 35 * np.stack(waves, -1) + 40.0 * (2 * x + y > size[1])[..., None]
    return np.clip(smooth + rng.normal(0, 10, (*size, 3)), 0, 255).astype(np.uint8)


def scores(size: tuple[int, int], classes: int, seed: int = 1) -> np.ndarray:
    """Random scores: float32 [H, W, K]."""
    return np.random.default_rng(seed).normal(0, 1.5, (*size, classes)).astype(np.float32)


def places(size: tuple[int, int]) -> np.ndarray:
    """x and y of every pixel: float64 [2, H W]."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x.ravel(), y.ravel()]).astype(np.float64)


def pixels(image: np.ndarray, theta_alpha: float, theta_beta: float) -> np.ndarray:
    """Features of the bilateral kernel, [5, H W]."""
    colours = image.reshape(-1, 3).T.astype(np.float64)
    return np.concatenate([places(image.shape[:2]) / theta_alpha, colours / theta_beta])


def kernel(features: np.ndarray) -> np.ndarray:
    """The Gaussian kernel exp(-|f_i - f_j|^2 / 2): [d, N] -> [N, N]."""
    apart = features[:, :, None] - features[:, None, :]
    return np.exp(-0.5 * (apart**2).sum(0))


class Lattice:
    """The permutohedral lattice of points [d, N] as a dictionary, one point after the other."""

    def __init__(self, features: np.ndarray):
        self.d = len(features)
        self.simplices = [self._simplex([float(x) for x in point]) for point in features.T]
        self.vertices = {key for simplex in self.simplices for key, _ in simplex}

    def _simplex(self, point: Sequence[float]) -> list[tuple[tuple[int, ...], float]]:
        """The corners of a point's simplex, and its barycentric coordinates."""
        d = self.d
        scaled = [
            f * (d + 1) * math.sqrt(2 / 3) / math.sqrt((i + 1) * (i + 2))
            for i, f in enumerate(point)
        ]
        elevated, total = [0.0] * (d + 1), 0.0
        for i in range(d, 0, -1):
            elevated[i] = total - i * scaled[i - 1]
            total += scaled[i - 1]
        elevated[0] = total
        origin = [(d + 1) * round(e / (d + 1)) for e in elevated]
        rest = [e - r for e, r in zip(elevated, origin, strict=True)]
        rank = [
            sum(rest[j] > rest[i] or (rest[j] == rest[i] and j < i) for j in range(d + 1))
            for i in range(d + 1)
        ]
        excess = sum(origin) // (d + 1)
        for i in range(d + 1):
            rank[i] += excess
            turn = (d + 1) * (int(rank[i] < 0) - int(rank[i] > d))
            rank[i] += turn
            origin[i] += turn
        shares = [0.0] * (d + 2)
        for e, r, k in zip(elevated, origin, rank, strict=True):
            shares[d - k] += (e - r) / (d + 1)
            shares[d - k + 1] -= (e - r) / (d + 1)
        shares[0] += 1 + shares[d + 1]
        return [
            (
                tuple(origin[i] + q - (d + 1) * (rank[i] > d - q) for i in range(d)),
                shares[q],
            )
            for q in range(d + 1)
        ]

    def __call__(self, values: np.ndarray, transpose: bool = False) -> np.ndarray:
        """Filters values, [N, C] -> [N, C]; `transpose` applies the adjoint."""
        table = {key: np.zeros(values.shape[1]) for key in self.vertices}
        for simplex, value in zip(self.simplices, values, strict=True):
            for key, share in simplex:
                table[key] += share * value
        axes = range(self.d + 1)
        for axis in reversed(axes) if transpose else axes:
            step = np.array([self.d if i == axis else -1 for i in range(self.d)])
            table = {
                key: value
                + 0.5 * table.get(tuple((np.array(key) + step).tolist()), 0)
                + 0.5 * table.get(tuple((np.array(key) - step).tolist()), 0)
                for key, value in table.items()
            }
        gain = 1 / (1 + 2.0**-self.d)
        return np.stack([gain * sum(b * table[key] for key, b in s) for s in self.simplices])


def normalized(dense: np.ndarray, normalization: str) -> np.ndarray:
    """The matrix of messages for the matrix of a kernel: [N, N] -> [N, N]."""
    n = dense.sum(1)
    if normalization == "symmetric":
        return dense / np.sqrt(n)[:, None] / np.sqrt(n)[None, :]
    by = {"after": n[:, None], "before": n[None, :], "none": 1.0, "mean": n.mean()}
    return dense / by[normalization]


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(np.asarray(logits, np.float64) - np.max(logits, -1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def marginals(
    logits: np.ndarray,
    messages: Sequence[np.ndarray],
    energies: Sequence[np.ndarray],
    *,
    iterations: int,
    relaxation: float = 1.0,
) -> np.ndarray:
    """Mean field: [N, K] -> [N, K].

    Args:
        logits: the negative unary term.
        messages: the matrix [N, N] of every kernel's messages.
        energies: the matrix [K, K] of every kernel's compatibilities.
        iterations, relaxation: those of `mean_field.infer`.
    """
    logits = np.asarray(logits, np.float64)
    q = softmax(logits)
    for _ in range(iterations):
        energy = np.zeros_like(logits)
        for send, cost in zip(messages, energies, strict=True):
            message = send @ q
            for label in range(logits.shape[1]):
                for other in range(logits.shape[1]):
                    energy[:, label] += cost[label, other] * message[:, other]
        q = (1 - relaxation) * q + relaxation * softmax(logits - energy)
    return q


def potts(weight: float, classes: int) -> np.ndarray:
    """Potts compatibility, [K, K]: different labels have the weight as energy, equal labels 0."""
    return weight * (1 - np.eye(classes))


def slopes(loss: Callable, at: Mapping[str, np.ndarray], step: float = 1e-6) -> dict[str, float]:
    """Central differences of `loss(**at)` along the `direction` of one argument at a time."""
    found = {}
    for name, value in at.items():
        move = step * direction(value)
        above, below = (float(loss(**{**at, name: value + s * move})) for s in (1, -1))
        found[name] = (above - below) / (2 * step)
    return found


def direction(value: np.ndarray) -> np.ndarray:
    """A random direction, the same for the same shape."""
    return np.random.default_rng(np.size(value)).normal(size=np.shape(value))


def along(gradients: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The values of `slopes` that the gradients predict."""
    return {name: float((np.asarray(g) * direction(g)).sum()) for name, g in gradients.items()}

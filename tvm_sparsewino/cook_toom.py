"""Exact Winograd (Toom-Cook) algorithms F(m, r) for any output size, filter size and points.

One-dimensional: ``y = A^T [(G g) * (B^T d)]`` computes the ``m`` outputs of a correlation of a
filter ``g`` of ``r`` taps with ``alpha = m + r - 1`` inputs ``d`` using ``alpha`` multiplications.
Two-dimensional: ``Y = A^T [(G g G^T) * (B^T d B)] A``. All coefficients are kept as
:class:`fractions.Fraction`; every algorithm is proven when it is made.

Construction: Toom-Cook interpolation at ``alpha - 1`` finite points and infinity, transposed to a
FIR filter (S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin and S. Gray,
"Fast Algorithms for Convolutional Neural Networks", CVPR 2016).

The table of canonical points lives here and nowhere else: Winograd-domain weights only mean
something together with their points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain, count, islice, product

import numpy as np

from .errors import ConfigError

Matrix = tuple[tuple[Fraction, ...], ...]

# The last point of every algorithm; not a number, so it is kept out of the tuple of points.
INFINITY = "inf"


# Magnitudes of the points in order, each used with both signs so that even and odd parts of the
# transforms can be shared. 3/4 and 4/3 follow 1/2 because they lose the fewest digits at
# alpha = 10 (error estimate 2.5e-4 for F(8,3) against 1.5e-3 with 4).
_MAGNITUDES = tuple(map(Fraction, ("1", "2", "1/2", "3/4", "4/3", "4", "1/4")))


def _finite_points() -> Iterator[Fraction]:
    """0, then +-magnitude for the table above, then for every other positive fraction."""
    yield Fraction(0)
    seen = set()
    others = (Fraction(n, s - n) for s in count(3) for n in range(1, s))
    for magnitude in chain(_MAGNITUDES, others):
        if magnitude not in seen:
            seen.add(magnitude)
            yield magnitude
            yield -magnitude


def canonical_points(m: int, r: int) -> tuple[Fraction, ...]:
    """The ``m + r - 2`` finite points used for F(m, r) everywhere in this project.

    Infinity is always the last point and is not in the tuple.

    Raises:
        ConfigError: ``m`` or ``r`` is not a positive integer.
    """
    _check_sizes(m, r)
    return tuple(islice(_finite_points(), m + r - 2))


def points_to_text(points: Sequence[Fraction]) -> tuple[str, ...]:
    """The points as exact text, infinity last: the form kept in operators and files."""
    return (*(str(p) for p in points), INFINITY)


@dataclass(frozen=True)
class CookToom:
    """One algorithm F(m, r): exact transforms and what follows from them.

    Attributes:
        m: outputs per tile and dimension.
        r: filter taps per dimension.
        points: finite points; infinity follows.
        bt: B^T, [alpha][alpha], the input transform.
        g: G, [alpha][r], the filter transform.
        at: A^T, [m][alpha], the output transform.
    """

    m: int
    r: int
    points: tuple[Fraction, ...]
    bt: Matrix
    g: Matrix
    at: Matrix

    @property
    def alpha(self) -> int:
        """Tile size: inputs, and multiplications, per tile and dimension."""
        return self.m + self.r - 1

    @property
    def coordinates(self) -> int:
        """Coordinates of the two-dimensional algorithm, alpha^2."""
        return self.alpha**2

    @property
    def is_canonical(self) -> bool:
        """Whether the points are the project's own for this (m, r)."""
        return self.points == canonical_points(self.m, self.r)

    def __str__(self) -> str:
        return f"F({self.m},{self.r})"

    def arrays(self, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(B^T, G, A^T)`` as NumPy arrays of ``dtype``."""
        return tuple(
            np.array(x, dtype=np.float64).astype(dtype) for x in (self.bt, self.g, self.at)
        )

    def importance(self) -> np.ndarray:
        """Gain of each coordinate from the coefficient to the output, float64 [alpha^2].

        ``F_ij = (|B^T row i| |A row i|) (|B^T row j| |A row j|)`` in Euclidean norms: the rms
        change of the output for a unit change of the coefficient under white input (J. Yu,
        J. Park, M. Naumov, "Spatial-Winograd Pruning Enabling Sparse Winograd Convolution",
        arXiv:1901.02132).
        """
        bt, _, at = self.arrays()
        gain = np.linalg.norm(bt, axis=1) * np.linalg.norm(at, axis=0)
        return np.outer(gain, gain).ravel()

    def output_gain(self) -> np.ndarray:
        """``|A row i| |A row j|`` per coordinate, float64 [alpha^2]: the output's part in it."""
        norm = np.linalg.norm(self.arrays()[2], axis=0)
        return np.outer(norm, norm).ravel()

    def error_estimate(self, channels: int = 64) -> float:
        """Expected max error / max |output| of a float32 convolution with random data.

        A rounding model, not a bound: every coordinate's input, coefficient and product carry an
        independent relative rounding of 2^-25 rms, sums over ``channels`` add their share as a
        random walk, and the output transform carries all of it to the output. Within a factor of
        three of measurements with 64 channels for r = 3, m <= 8 and r = 5 or 7, m <= 4; beyond
        those, and with few channels, measured errors are down to a sixth of it.
        """
        bt, g, at = self.arrays()
        moved = (at**2).sum(0) * (bt**2).sum(1) * (g**2).sum(1)
        amplification = np.sqrt(np.outer(moved, moved).sum()) / self.r
        return float(2.0**-25 * amplification * np.sqrt(self.alpha + np.log2(channels + 1)))

    def prove(self) -> None:
        """Check the bilinear identity exactly: sum_x A^T[i,x] G[x,k] B^T[x,j] = [j == i + k].

        Raises:
            ArithmeticError: the matrices do not compute a correlation.
        """
        alpha = self.alpha
        for i, k, j in product(range(self.m), range(self.r), range(alpha)):
            total = sum(self.at[i][x] * self.g[x][k] * self.bt[x][j] for x in range(alpha))
            if total != (j == i + k):
                raise ArithmeticError(f"{self}: output {i}, tap {k}, input {j} gives {total}")


@lru_cache(maxsize=None, typed=True)  # 2.0 equals 2, and must not be answered from the cache
def cook_toom(m: int, r: int, points: tuple[Fraction, ...] | None = None) -> CookToom:
    """Make and prove F(m, r) with the given finite points, or with the canonical ones.

    Signs follow the usual form: the row of point 0 is positive in G.

    Raises:
        ConfigError: sizes that are no positive integers, a wrong number of points, or equal points.
    """
    _check_sizes(m, r)
    points = canonical_points(m, r) if points is None else tuple(Fraction(p) for p in points)
    if len(points) != m + r - 2:
        raise ConfigError(f"F({m},{r}) needs {m + r - 2} finite points, got {len(points)}")
    if len(set(points)) != len(points):
        raise ConfigError(f"F({m},{r}) needs distinct points, got {[str(p) for p in points]}")
    algorithm = CookToom(m, r, points, *_matrices(m, r, points))
    algorithm.prove()
    return algorithm


def points_from_text(text: Sequence[str]) -> tuple[Fraction, ...]:
    """Read what :func:`points_to_text` wrote.

    Raises:
        ConfigError: an entry is no fraction, or infinity is not last.
    """
    if not text or text[-1] != INFINITY:
        raise ConfigError(f"points must end with {INFINITY!r}, got {list(text)}")
    try:
        return tuple(Fraction(p) for p in text[:-1])
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise ConfigError(f"points must be fractions, got {list(text)}") from error


def _check_sizes(m: int, r: int) -> None:
    if not (isinstance(m, int) and isinstance(r, int) and m >= 1 and r >= 1):
        raise ConfigError(f"F(m, r) needs positive integers, got m={m!r}, r={r!r}")


def _matrices(m: int, r: int, points: tuple[Fraction, ...]) -> tuple[Matrix, Matrix, Matrix]:
    alpha = m + r - 1
    bt, g = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        sign = -1 if p == 0 and scale < 0 else 1
        bt.append(tuple(sign * c for c in _expand(others, alpha)))
        g.append(tuple(sign * p**k / scale for k in range(r)))
    bt.append(_expand(points, alpha))
    g.append(tuple(Fraction(k == r - 1) for k in range(r)))
    at = tuple((*(p**i for p in points), Fraction(i == m - 1)) for i in range(m))
    return tuple(bt), tuple(g), at


def _expand(roots: Sequence[Fraction], length: int) -> tuple[Fraction, ...]:
    """Coefficients, lowest degree first, of the monic polynomial with these roots."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [
            s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)
        ]
    return tuple(coefficients + [Fraction(0)] * (length - len(coefficients)))

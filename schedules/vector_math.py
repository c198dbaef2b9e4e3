"""exp, sigmoid, tanh, erf and powers as arithmetic that compilers can vectorise.

LLVM has no vector code for these functions: in a vectorised loop it calls the C library for every
lane, 5 to 20 times as slow. Here e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2, where
the Taylor polynomial of degree 7 is exact to 5e-9; ln 2 is subtracted in two parts (Cody and Waite,
Software Manual for the Elementary Functions, 1980). exp is off by 3e-7 of its value, by 8e-7 just
below overflow, the others by 3e-7; erf is formula 7.1.26 of Abramowitz and Stegun, Handbook of
Mathematical Functions.
Operands appear many times in what is returned; LLVM computes them once.
"""

from __future__ import annotations

import math
from functools import cache, reduce
from typing import Any

from numpy.polynomial import Chebyshev, Polynomial

from .._compat import tir

_LARGEST, _SMALLEST = 88.72283, -87.33654  # beyond, e^x is infinity or no normal number
_LN2_HIGH = 0.693359375  # few bits, so that its product with n is exact
_DEGREE = 7
_TANH_LIMIT = 10.0  # beyond, tanh is 1 in float32
_ERF_P = 0.3275911
_ERF_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def exp(x: Any) -> Any:
    """e^x of a float32 expression; infinity beyond 88.7, 0 below -87.3, NaN of NaN."""
    scale, q = _split(x)
    value = tir.Select(x < _number(_SMALLEST), _number(0.0), scale * q + scale)
    return tir.Select(x > _number(_LARGEST), _number(math.inf), value)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) of a float32 expression."""
    return _number(1.0) / (_number(1.0) + exp(_number(0.0) - x))


def tanh(x: Any) -> Any:
    """tanh of a float32 expression: E / (E + 2) with E = e^2x - 1, which is exact near 0."""
    limited = tir.min(_number(_TANH_LIMIT), tir.max(_number(-_TANH_LIMIT), x))
    scale, q = _split(limited * _number(2.0))
    e = scale * q + (scale - _number(1.0))
    return e / (e + _number(2.0))


def erf(x: Any) -> Any:
    """The error function of a float32 expression."""
    size = tir.max(x, _number(0.0) - x)
    t = _number(1.0) / (_number(1.0) + _number(_ERF_P) * size)
    value = _number(_ERF_A[-1])
    for a in reversed(_ERF_A[:-1]):
        value = value * t + _number(a)
    positive = _number(1.0) - value * t * exp(_number(0.0) - x * x)
    return tir.Select(x < _number(0.0), _number(0.0) - positive, positive)


def power(x: Any, quarters: int) -> Any:
    """x^(quarters / 4) of a float32 expression, by square roots and products; off by 5e-7.

    Local response normalisation takes the power 3/4. As C's pow does, NaN of negative numbers where
    the power is not whole, though not of -infinity, and no negative zero.
    """
    whole, rest = divmod(abs(quarters), 4)
    if rest:
        x = tir.Select(x == _number(-math.inf), _number(math.inf), x)
        x = tir.Select(x == _number(0.0), _number(0.0), x)  # sqrt(-0) is -0
    root = tir.sqrt(x)
    factors = [x] * whole + [root] * (rest // 2) + [tir.sqrt(root)] * (rest % 2)
    value = reduce(lambda a, b: a * b, factors, _number(1.0))
    return _number(1.0) / value if quarters < 0 else value


# Quarters -> bias of the exponent, and how far off the guess then is at most.
_GUESSES = {1: (127 - 0.048, 0.0315), 2: (127 - 0.045, 0.0345), 3: (127 - 0.05, 0.0445)}
_CORRECTION_DEGREE = 5  # odd: its terms are taken in pairs


def inverse_power(x: Any, quarters: int, lanes: int) -> Any:
    """x^(-quarters / 4) of a float32 vector of ``lanes`` lanes, quarters 1 to 3, without roots.

    For normal x > 0, and NaN of NaN; infinity, zeros and negative numbers are not looked for. Off
    by 4e-7 of the value.

    The bits of a float are its logarithm, about, and so give a guess y (Blinn, Floating-Point
    Tricks, 1997). Its error e = 1 - x^quarters y^4, a tenth or two, is taken away by one
    polynomial: that of (1 - e)^(-1 / 4) through Chebyshev's points. Nothing overflows between.
    """
    bias, error = _GUESSES[quarters]
    width = f"x{lanes}" if lanes > 1 else ""
    bits = tir.reinterpret(f"int32{width}", x)
    share = {1: bits >> _whole(2), 2: bits >> _whole(1), 3: bits - (bits >> _whole(2))}[quarters]
    start = round((1 + quarters / 4) * bias * 2**23)
    y = tir.reinterpret(f"float32{width}", _whole(start) - share)
    root, unity = (2, x * y * y) if quarters == 2 else (4, _fourth(x, y, quarters))
    e = _number(1.0) - unity
    # Pairs of terms first (Estrin's scheme): half as long to wait for as term by term.
    numbers = [_number(value) for value in _root_series(root, error)]
    pairs = [b * e + a for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return y * reduce(lambda above, pair: above * (e * e) + pair, reversed(pairs))


def _fourth(x: Any, y: Any, quarters: int) -> Any:
    """x^quarters y^4 of a y about x^(-quarters / 4), for 1 or 3 quarters."""
    product = x * y
    if quarters == 1:
        return (product * y) * (y * y)
    return (product * product) * (product * y)


@cache
def _root_series(root: int, error: float) -> tuple[float, ...]:
    """Coefficients of (1 - e)^(-1 / root), the constant first, up to 1 - e = (1 +- error)^root."""
    ends = 1 - (1 + error) ** root, 1 - (1 - error) ** root
    through = Chebyshev.interpolate(lambda e: (1 - e) ** (-1 / root), _CORRECTION_DEGREE, ends)
    return tuple(through.convert(kind=Polynomial).coef.tolist())


def _whole(value: int) -> Any:
    return tir.const(value, "int32")


def _number(value: float) -> Any:
    return tir.const(value, "float32")


def _split(x: Any) -> tuple[Any, Any]:
    """2^n and e^r - 1; ``x`` is limited to where 2^n is a normal number."""
    # The constant comes first: the comparison is then false for NaN, which passes through.
    x = tir.min(_number(_LARGEST), tir.max(_number(_SMALLEST), x))
    n = tir.floor(x * _number(1 / math.log(2)) + _number(0.5))
    n = tir.min(_number(127.0), n)
    r = x - n * _number(_LN2_HIGH) - n * _number(math.log(2) - _LN2_HIGH)
    q = _number(1 / math.factorial(_DEGREE))
    for k in range(_DEGREE - 1, 0, -1):
        q = q * r + _number(1 / math.factorial(k))
    exponent = tir.Cast("int32", n) + tir.const(127, "int32")
    return tir.reinterpret("float32", exponent * tir.const(1 << 23, "int32")), q * r

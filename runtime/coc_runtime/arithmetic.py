"""The integers that every back end computes: rounding, scales, packing, confidence.

Everything is dyadic (a small integer times a power of two), so that sums which a float engine
forms are exact in any order as long as they stay below 2**24 units; `exact_scale_and_bias` chooses
scales for which they do. NumPy only; the trainer, the exporter and the runtime all call this file.
"""

import enum
from collections.abc import Sequence

import numpy as np

from .errors import CocError
from .limits import EXACT_LIMIT as EXACT_LIMIT
from .limits import MAX_SCALE_EXPONENT, MULTIPLIER_BITS, SUM_LIMIT

NEGLIGIBLE = -700.0
"""The exponential of a distance from the largest logit that adds nothing to a sum of at least 1 and is still
no denormal number."""

OTHER_ROUNDINGS = 26
"""What errs in a float32 softmax beside its additions, in half ulps: an exponential (4 ulps, 8), that of the
largest logit (2), differences of logits (a half ulp of the distance d; weighted by exp(-d) at most
log(classes), so 12), the quotient (1), a threshold's own rounding and ours (3)."""


class Task(enum.Enum):
    """What the outputs of a model are, which decides when successive exits are done with an image."""

    CLASSIFICATION = "classification"
    """Logits of classes; an image leaves where the largest probability reaches the exit's threshold."""
    REGRESSION = "regression"
    """Real numbers; an image leaves where an exit agrees with the one before within its threshold, the
    tolerance."""


class Encoding(enum.Enum):
    """How a k-bit weight code q stands for an integer."""

    ODD = "odd"
    """2 q - (2**k - 1): the odd integers of DoReFa, without a zero level; 1 bit gives -1 and +1."""
    SYMMETRIC = "symmetric"
    """q - 2**(k-1), the most negative value unused: what 8-bit layers hold."""


def decode(codes: np.ndarray, bits: int, encoding: Encoding) -> np.ndarray:
    """Weight codes (uint8, any shape) as the int32 integers that they stand for."""
    wide = codes.astype(np.int32)
    if encoding is Encoding.ODD:
        return 2 * wide - ((1 << bits) - 1)
    return wide - (1 << (bits - 1))


def encode(integers: np.ndarray, bits: int, encoding: Encoding) -> np.ndarray:
    """The uint8 codes of integers that `decode` would give back."""
    wide = np.asarray(integers).astype(np.int64)
    odd = encoding is Encoding.ODD
    codes = (wide + (1 << bits) - 1) >> 1 if odd else wide + (1 << (bits - 1))
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= 1 << bits:
        raise CocError(f"weights do not fit {bits} bits with {encoding.value} encoding")
    result: np.ndarray = codes.astype(np.uint8)
    if not np.array_equal(decode(result, bits, encoding), wide):
        raise CocError(f"weights are not representable with {bits}-bit {encoding.value} encoding")
    return result


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (uint8, flattened in C order) at `bits` each: ceil(bits * count / 8) bytes, low bits first."""
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1, 1)
    return np.packbits((flat >> np.arange(bits, dtype=np.uint8)) & 1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` codes of what `pack` wrote, uint8 [count]."""
    planes = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    return (planes << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)


def requantize(acc: np.ndarray, multiplier: np.ndarray | float, zero_point: int, bits: int) -> np.ndarray:
    """uint8 codes clip(rint(float32(acc) * float32(multiplier)) + zero_point, 0, 2**bits - 1).

    Ties go to even.
    """
    scaled = np.rint(acc.astype(np.float32) * np.asarray(multiplier, dtype=np.float32))
    return np.clip(scaled + np.float32(zero_point), 0, (1 << bits) - 1).astype(np.uint8)


WIDEST_SUM = SUM_LIMIT - SUM_LIMIT // 64
"""Sums of weights and codes stay below this, so that a bias fits beside them."""

_ABOVE_ONE, _HALF_ULP = 1 + 2.0**-52, 2.0**-53


def check_rounding() -> None:
    """Raise CocError in a thread that does not round to nearest, ties to even: its results would be others.

    C code of the same process changes that with fesetround. Computed, since Python cannot ask: upwards 1
    plus half an ulp would be more than 1, downwards and towards zero the second sum would stay below.
    """
    if 1.0 + _HALF_ULP != 1.0 or _ABOVE_ONE + _HALF_ULP != 1 + 2.0**-51:
        raise CocError(
            "the floating point of this thread does not round to nearest, because C code in this process "
            "has called fesetround: results would be wrong; let it call fesetround(FE_TONEAREST) first"
        )


def round_significant(values: np.ndarray, bits: int) -> np.ndarray:
    """Positive float64 values rounded to `bits` significant bits."""
    mantissa, exponent = np.frexp(values)
    result: np.ndarray = np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)
    return result


def odd_part(values: np.ndarray) -> np.ndarray:
    """The odd integer m of positive float32 values m * 2**e, as int64."""
    mantissa = np.ldexp(np.frexp(values.astype(np.float64))[0], 24).astype(np.int64)
    return mantissa // np.maximum(mantissa & -mantissa, 1)


def worst_sum(integers: np.ndarray, zero_point: int, bits: int) -> np.ndarray:
    """Largest magnitude of any partial sum of w * (q - zero_point) per output channel, int64 [O].

    `integers` is [O, ...]; q runs over all codes of `bits` bits.
    """
    flat = integers.reshape(len(integers), -1).astype(np.int64)
    positive = np.where(flat > 0, flat, 0).sum(axis=1)
    negative = positive - flat.sum(axis=1)
    low, high = zero_point, (1 << bits) - 1 - zero_point
    return np.maximum(positive * high + negative * low, positive * low + negative * high)


def exact_scale_and_bias(
    scale: np.ndarray, bias: np.ndarray, input_exponent: int, worst: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Round a layer's real scale and bias so that any float32 evaluation of it is exact, if one can be.

    scale, bias: real values per output channel, float64 [O]; scale > 0. worst: `worst_sum` of the
    layer. Returns (scale float32 [O], bias int32 [O]); the bias counts units of
    scale * 2**input_exponent. A scale keeps up to MULTIPLIER_BITS significant bits, fewer where
    its odd part m would let m * (worst + |bias|) reach 2**24. Channels whose sums alone reach 2**23 keep all
    bits: integers must add them (docs/adr/0017). A scale too small for its bias is raised. Raises CocError
    where the sums do not fit 32 bits.
    """
    if worst.max(initial=0) >= WIDEST_SUM:
        raise CocError(f"sums reach {int(worst.max())}, beyond 2**31: use fewer weight bits or channels")
    unit, wide = 2.0**input_exponent, worst >= EXACT_LIMIT // 2
    room = np.where(wide, 0.99 * (SUM_LIMIT - worst), EXACT_LIMIT // 2 - 2)
    smallest = np.abs(bias) / unit / room
    raised = np.maximum(scale, np.maximum(smallest, 2.0**-MAX_SCALE_EXPONENT))
    chosen = 2.0 ** np.ceil(np.log2(raised))
    for bits in range(1, MULTIPLIER_BITS + 1):
        candidate = round_significant(raised, bits)
        rounded_bias = np.rint(bias / (candidate * unit))
        reach = worst + np.abs(rounded_bias)
        exact = wide | (odd_part(candidate.astype(np.float32)) * reach < EXACT_LIMIT)
        chosen = np.where(exact, candidate, chosen)
    return chosen.astype(np.float32), np.rint(bias / (chosen * unit)).astype(np.int32)


def confidence(logits: np.ndarray) -> np.ndarray:
    """Maximum softmax probability, 1 / sum_i exp(l_i - max l), float32 [N] of float32 logits [N, C].

    Computed in double precision, in index order, and rounded once: libraries whose exponentials differ by
    an ulp then give the same float32, but for one confidence in some ten millions.
    """
    wide = np.asarray(logits, dtype=np.float32).astype(np.float64)
    distances = np.maximum(wide - wide.max(axis=1, keepdims=True), NEGLIGIBLE)
    result: np.ndarray = (1 / np.add.accumulate(np.exp(distances), axis=1)[:, -1]).astype(np.float32)
    return result


def confidence_error(classes: int) -> float:
    """How far, relative to it, another engine's softmax in float32 may lie from `confidence`.

    An engine may sum `classes` exponentials in any order: each of its classes - 1 additions errs by half an
    ulp, 2**-24 of a partial sum. OTHER_ROUNDINGS, in the same unit, stand for the rest. k roundings in turn
    err by no more than k u / (1 - k u) (Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1).
    """
    error = (classes - 1 + OTHER_ROUNDINGS) * 2.0**-24
    return error / (1 - error)


def agreement(outputs: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Minus the largest disagreement with the exit before, -max_i |y_i - b_i|, float32 [N].

    outputs, before: float32 [N, outputs]; before is None at exit 0, which agrees with nothing: -inf.
    """
    if before is None:
        return np.full(len(outputs), -np.inf, np.float32)
    outputs, before = np.asarray(outputs, np.float32), np.asarray(before, np.float32)
    return -np.abs(outputs - before).max(axis=1)


def exit_confidence(logits: np.ndarray, before: np.ndarray | None, task: Task) -> np.ndarray:
    """What an exit's threshold is compared with, float32 [N]: `confidence`, or `agreement` of numbers.

    before: the logits of the exit before, None at exit 0.
    """
    return confidence(logits) if task is Task.CLASSIFICATION else agreement(logits, before)


def leaves(score: np.ndarray, threshold: float | np.floating, task: Task) -> np.ndarray:
    """Which images an early exit lets go, bool [N]: `exit_confidence` against one of `gate_thresholds`."""
    return score >= (threshold if task is Task.CLASSIFICATION else -threshold)


def gate_thresholds(thresholds: Sequence[float], task: Task = Task.CLASSIFICATION) -> np.ndarray:
    """float32 [early exits], as every back end compares them: with a confidence, which can be 1, or, as
    tolerances, with a disagreement.

    A confidence just above 1 must not round to 1: it says never to leave. Tolerances stay finite, so that
    no image leaves at exit 0.
    """
    if task is Task.REGRESSION:
        return np.minimum(np.array(thresholds, np.float64), np.finfo(np.float32).max).astype(np.float32)
    wide = np.minimum(np.array(thresholds, np.float64), 2)
    values = wide.astype(np.float32)
    never = np.nextafter(np.float32(1), np.float32(2))
    result: np.ndarray = np.where((wide > 1) & (values <= 1), never, values)
    return result


def exits_taken(
    logits: np.ndarray, thresholds: Sequence[float], task: Task = Task.CLASSIFICATION
) -> np.ndarray:
    """The first exit of each image that lets it go, int64 [N], when every exit was computed.

    logits: float32 [exits, N, classes], the last exit last; thresholds: one per exit but the last.
    """
    taken = np.full(logits.shape[1], len(logits) - 1)
    for k, threshold in reversed(list(enumerate(gate_thresholds(thresholds, task)))):
        score = exit_confidence(logits[k], logits[k - 1] if k else None, task)
        taken[leaves(score, threshold, task)] = k
    return taken

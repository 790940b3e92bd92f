"""Loops for which PyTorch has no fast operation on a CPU, compiled by numba on first use and cached on disk.

All are fp32, and each output row is written by one thread, so no result depends on the number of threads.
Lists of entries are in row-major order: entry e belongs to the row r with starts[r] <= e < starts[r + 1].
They stand in one file because numba's cache notices changes in a loop's own file, not in those of the functions it calls.
"""
import inspect
from collections.abc import Callable

import numba
import numpy as np
import torch
from numba import njit, prange

# Sums may be reordered into vectors; NaN and infinity keep their meaning.
MATH = {"reassoc", "contract", "nsz"}
ZERO, ONE = np.float32(0), np.float32(1)


def compiled(function: Callable, parallel: bool = True) -> Callable:
    options = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": MATH}
    return njit(parallel=parallel, **options)(inspect.unwrap(function))  # without a runtime type checker's wrapper


def inlined(function: Callable) -> Callable:
    return compiled(function, parallel=False)


numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # pyright: ignore
numba.set_parallel_chunksize(32)  # rows: some have many entries, so threads take them as they become free


@inlined
def _dot(a, b):
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@inlined
def _float(bits):
    """The float of these bits."""
    one = np.empty(1, np.int32)
    one[0] = bits
    return one.view(np.float32)[0]


@compiled
def quantise(x, factor, most, q, scale, norm):
    """x [n, d] * factor [d] ~ scale [n] * q [n, d] with integers of magnitude at most `most`, and the norms of its rows."""
    n, d = x.shape
    for r in prange(n):
        row = np.empty(d, np.float32)  # no array expressions: each would be compiled as a parallel loop of its own
        for j in range(d):
            row[j] = x[r, j] * factor[j]
        bits = row.view(np.int32)
        largest = np.int32(0)
        for j in range(d):  # the bits of magnitudes are ordered as integers, whose maximum is a vector instruction
            largest = max(largest, bits[j] & np.int32(0x7FFFFFFF))
        scale[r] = max(_float(largest), np.float32(1e-30)) / most
        norm[r] = np.sqrt(_dot(row, row))
        inverse = ONE / scale[r]
        for j in range(d):
            q[r, j] = np.int32(np.floor(row[j] * inverse + np.float32(0.5)))


@compiled
def quantisation_error(x, factor, q, scale, error):
    """The norm of each row of x * factor / scale - q."""
    for r in prange(len(x)):
        total, inverse = ZERO, ONE / scale[r]
        for j in range(x.shape[1]):
            off = x[r, j] * factor[j] * inverse - np.float32(q[r, j])
            total += off * off
        error[r] = np.sqrt(total)


@inlined
def _list(near, columns):
    """Write where `near`, a flag per byte and whole words of them, is set; returns how many, even if `columns` is too short.

    Eight flags are read at once: few are set.
    """
    found, words = 0, near.view(np.uint64)
    for i in range(len(words)):
        if words[i]:
            for j in range(8 * i, 8 * i + 8):
                if near[j]:
                    if found < len(columns):
                        columns[found] = j
                    found += 1
    return found


@compiled
def scan_above(score, row_scale, row_error, bound, error, slots, counts):
    """Where (score + error) * row_scale + row_error > bound: the columns, per row, and their number.

    The number is right even where a row's slots do not hold them all.
    """
    batch, d_sae = score.shape
    for r in prange(batch):
        row, scale, slack = score[r], row_scale[r], row_error[r]
        near = np.zeros((d_sae + 7) // 8 * 8, np.uint8)
        for j in range(d_sae):
            near[j] = (np.float32(row[j]) + error[j]) * scale + slack > bound[j]
        counts[r] = _list(near, slots[r])


@compiled
def scan_near(score, row_scale, row_error, error, scale, bias, least, slots, counts):
    """Where ((score + error) * row_scale + row_error) * scale + bias >= least: the columns, per row, and their number."""
    batch, d_sae = score.shape
    for r in prange(batch):
        row, factor, slack, bound = score[r], row_scale[r], row_error[r], least[r]
        near = np.zeros((d_sae + 7) // 8 * 8, np.uint8)
        for j in range(d_sae):
            near[j] = ((np.float32(row[j]) + error[j]) * factor + slack) * scale[j] + bias[j] >= bound
        counts[r] = _list(near, slots[r])


@inlined
def _order(bits):
    """The bits of a float as an integer of the same order."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@inlined
def _kth_largest(bits, n, k):
    """Of n floats, given by their bits, as an `_order` integer; for n < k the smallest there is."""
    low, high = np.int64(-(2**31)), np.int64(2**31 - 1)
    while low < high:
        middle = low + (high - low + 1) // 2
        least = np.int32(middle)
        above = np.float32(0)
        for i in range(n):
            above += ONE if _order(bits[i]) >= least else ZERO
        if above >= k:
            low = middle
        else:
            high = middle - 1
    return np.int32(low)


@compiled
def scan_largest(score, row_scale, row_error, scale, bias, k, slots, counts):
    """Columns of each row that may be among its k largest of score * row_scale * scale + bias, give or take row_error.

    The columns are dealt out to groups; the k-th largest of the groups' maxima is a close lower bound of the k-th
    largest of all.
    """
    batch, d_sae = score.shape
    room = slots.shape[1]
    groups = d_sae
    while groups >= 8 * k and groups >= 128:
        groups = (groups + 1) // 2
    rounds = (d_sae + groups - 1) // groups
    for r in prange(batch):
        row, out, factor = score[r], slots[r], row_scale[r]
        z, largest = np.empty(rounds * groups, np.float32), np.empty(groups, np.float32)
        for g in range(groups):
            largest[g] = -np.inf
        for at in range(0, d_sae, groups):
            part, q, t, b = z[at : at + groups], row[at : at + groups], scale[at : at + groups], bias[at : at + groups]
            for g in range(len(q)):
                part[g] = np.float32(q[g]) * factor * t[g] + b[g]
                largest[g] = part[g] if part[g] > largest[g] else largest[g]
        least = _float(_order(_kth_largest(largest.view(np.int32), groups, k)))  # _order is its own inverse
        least -= row_error[r]
        found = 0
        for g in range(groups):
            if largest[g] >= least:
                for j in range(g, d_sae, groups):
                    if z[j] >= least:
                        if found < room:
                            out[found] = j
                        found += 1
        counts[r] = found


@inlined
def _dots(left, right, index, out):
    """out[i] = left . right[index[i]]; four at a time, so that left is loaded a quarter as often."""
    whole = len(index) - len(index) % 4
    for i in range(0, whole, 4):
        a, b, c, d = right[index[i]], right[index[i + 1]], right[index[i + 2]], right[index[i + 3]]
        first, second, third, fourth = ZERO, ZERO, ZERO, ZERO
        for j in range(len(left)):
            first += left[j] * a[j]
            second += left[j] * b[j]
            third += left[j] * c[j]
            fourth += left[j] * d[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = first, second, third, fourth
    for i in range(whole, len(index)):
        out[i] = _dot(left, right[index[i]])


@compiled
def keep_above(slots, values, counts, u, W_enc_T, b_enc, bound):
    """Exact pre-activations of the candidates; those not above their bound leave the slots."""
    for r in prange(len(counts)):
        columns, pi = slots[r, : counts[r]], values[r, : counts[r]]
        _dots(u[r], W_enc_T, columns, pi)
        kept = 0
        for i in range(len(columns)):
            j = columns[i]
            z = pi[i] + b_enc[j]
            if z > bound[j]:
                columns[kept], pi[kept] = j, z
                kept += 1
        counts[r] = kept


@compiled
def keep_largest(slots, values, counts, u, W_enc_T, b_enc, k):
    """Exact pre-activations of the candidates; all but the k largest leave the slots."""
    for r in prange(len(counts)):
        columns, pi = slots[r, : counts[r]], values[r, : counts[r]]
        _dots(u[r], W_enc_T, columns, pi)
        for i in range(len(columns)):
            pi[i] += b_enc[columns[i]]
        if len(columns) <= k:
            continue
        bits = pi.view(np.int32)
        least = _kth_largest(bits, len(bits), k)
        ties = k
        for i in range(len(bits)):
            ties -= _order(bits[i]) > least
        kept = 0
        for i in range(len(bits)):
            order = _order(bits[i])
            if order > least or (order == least and ties > 0):
                ties -= order == least
                columns[kept], pi[kept] = columns[i], pi[i]
                kept += 1
        counts[r] = kept


@inlined
def flatten(slots, values, starts, rows, columns, out):
    for r in range(len(starts) - 1):
        start = starts[r]
        for i in range(starts[r + 1] - start):
            rows[start + i], columns[start + i], out[start + i] = r, slots[r, i], values[r, i]


@inlined
def _add_rows(total, matrix, index, weights, entries):
    """total += sum of weight * matrix[index] over these entries; four at a time, so that the sum is written less often."""
    four = np.empty(4, np.int64)
    n, left = 0, len(entries)
    for e in entries:
        left -= 1
        if weights[e] != ZERO:
            four[n] = e
            n += 1
        if n == 4 or (left == 0 and n > 0):
            for i in range(n, 4):
                four[i] = four[0]
            a, b, c, d = matrix[index[four[0]]], matrix[index[four[1]]], matrix[index[four[2]]], matrix[index[four[3]]]
            wa, wb, wc, wd = weights[four[0]], weights[four[1]], weights[four[2]], weights[four[3]]
            wb, wc, wd = wb if n > 1 else ZERO, wc if n > 2 else ZERO, wd if n > 3 else ZERO
            for j in range(len(total)):
                total[j] += wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
            n = 0


@compiled
def sum_columns(order, starts, rows, weights, matrix, out):
    """For every column of the list the sum of weight * matrix[row]; order, starts: as `sort_by_column` leaves them."""
    for c in prange(len(out)):
        for j in range(out.shape[1]):
            out[c, j] = ZERO
        _add_rows(out[c], matrix, rows, weights, order[starts[c] : starts[c + 1]])


@compiled
def reconstruct(starts, columns, f, W_dec, b_dec, x, residual, squares, products):
    """residual = f W_dec + b_dec - x, its rows' squared norms, and, while W_dec's rows are in the cache, residual[row] .
    W_dec[column] for every entry."""
    for r in prange(len(residual)):
        own = slice(starts[r], starts[r + 1])
        for j in range(len(b_dec)):
            residual[r, j] = b_dec[j] - x[r, j]
        _add_rows(residual[r], W_dec, columns, f, range(starts[r], starts[r + 1]))
        squares[r] = _dot(residual[r], residual[r])
        _dots(residual[r], W_dec, columns[own], products[own])


@inlined
def sort_by_column(columns, starts, order):
    """order: the entries column by column, rows ascending within each; starts [d_sae + 1]: where each column begins."""
    starts[:] = 0
    for column in columns:
        starts[column + 1] += 1
    for i in range(1, len(starts)):
        starts[i] += starts[i - 1]
    filled = starts[:-1].copy()
    for e in range(len(columns)):
        order[filled[columns[e]]] = e
        filled[columns[e]] += 1


@inlined
def mark_fired(columns, values, fired):
    for e in range(len(columns)):
        fired[columns[e]] |= values[e] > ZERO  # no branch: it would be unpredictable


@inlined
def _squares(g, w, unit):
    """|g|^2; of the part of g that is tangent to the sphere where w has unit norm."""
    total = _dot(g, g)
    if unit:
        along = _dot(g, w)
        total -= along * along
    return total


@inlined
def _adam(w, g, m, v, clip, step_size, beta1, beta2, unbias, eps, unit):
    """One Adam step of a row: the gradient is projected and clipped on the way in, a unit row is renormalised.

    step_size = lr / (1 - beta1^t), unbias = 1 / sqrt(1 - beta2^t); all scalars are fp32. Without beta1 the mean is the
    gradient, and is not kept.
    """
    along = _dot(w, g) if unit else ZERO
    norm = ZERO
    if beta1 == ZERO:
        for j in range(len(w)):
            h = (g[j] - along * w[j]) * clip
            v[j] = beta2 * v[j] + (ONE - beta2) * h * h
            w[j] -= step_size * h / (np.sqrt(v[j]) * unbias + eps)
            norm += w[j] * w[j]
    else:
        for j in range(len(w)):
            h = (g[j] - along * w[j]) * clip
            m[j] = beta1 * m[j] + (ONE - beta1) * h
            v[j] = beta2 * v[j] + (ONE - beta2) * h * h
            w[j] -= step_size * m[j] / (np.sqrt(v[j]) * unbias + eps)
            norm += w[j] * w[j]
    if unit:
        inverse = ONE / np.sqrt(norm)
        for j in range(len(w)):
            w[j] *= inverse


@compiled
def row_squares(grad, weight, unit, out):
    """Squared norm of each row of the gradient; where rows have unit norm, of its part tangent to the sphere."""
    if len(out) == 1:  # a vector: waking the threads would take longer
        out[0] = _squares(grad[0], weight[0], unit)
    else:
        for r in prange(len(out)):
            out[r] = _squares(grad[r], weight[r], unit)


@compiled
def adam_rows(grad, weight, mean, square, clip, step_size, beta1, beta2, unbias, eps, unit):
    """One Adam step."""
    if len(weight) == 1:
        _adam(weight[0], grad[0], mean[0], square[0], clip, step_size, beta1, beta2, unbias, eps, unit)
    else:
        for r in prange(len(weight)):
            _adam(weight[r], grad[r], mean[r], square[r], clip, step_size, beta1, beta2, unbias, eps, unit)


@compiled
def sum_columns_and_squares(order, starts, rows, weights, matrix, weight, unit, out, squares):
    """`sum_columns`, and `row_squares` of each row while it is in the cache."""
    for c in prange(len(out)):
        for j in range(out.shape[1]):
            out[c, j] = ZERO
        _add_rows(out[c], matrix, rows, weights, order[starts[c] : starts[c + 1]])
        squares[c] = _squares(out[c], weight[c], unit)


@compiled
def adam_sums(
    order, starts, rows, weights, matrix, weight, mean, square, clip, step_size, beta1, beta2, unbias, eps, unit, squares
):
    """`adam_rows` of `sum_columns`, of which one row at a time is there, and `row_squares` unless `squares` is empty."""
    for c in prange(len(weight)):
        total = np.zeros(matrix.shape[1], np.float32)
        _add_rows(total, matrix, rows, weights, order[starts[c] : starts[c + 1]])
        if len(squares) > 0:
            squares[c] = _squares(total, weight[c], unit)
        _adam(weight[c], total, mean[c], square[c], clip, step_size, beta1, beta2, unbias, eps, unit)

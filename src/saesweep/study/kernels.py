"""The loops of the collector, compiled by numba as those of training are (arch/ops/kernels.py).

Each latent is written by one thread, and what is kept does not depend on the order of the activations.
"""
import numpy as np
from numba import prange

from saesweep.arch.ops.kernels import ONE, ZERO, compiled, inlined
from saesweep.study.hits import BINS

NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)  # where a latent has fewer than SAMPLE activations
EDGES = np.exp2([0.25, 0.5, 0.75])
NEAR = EDGES.astype(np.float32)
ROOTS = np.where(NEAR < EDGES, np.nextafter(NEAR, np.float32(2)), NEAR)  # the first fp32 numbers that are not below EDGES


@inlined
def _count(z):
    found = ZERO  # a narrow sum is a vector sum
    for j in range(len(z)):
        found += ONE if z[j] > ZERO else ZERO
    return int(found)


@compiled
def count_active(f, counts):
    """The number of latents above 0 of each row."""
    for r in prange(len(f)):
        counts[r] = 0
        for at in range(0, f.shape[1], 4096):
            counts[r] += _count(f[r, at : at + 4096])


@compiled
def list_active(f, starts, rows, columns, values):
    """These latents, row after row."""
    for r in prange(len(f)):
        at = starts[r]
        for first in range(0, f.shape[1], 64):
            z = f[r, first : first + 64]
            if _count(z):
                for j in range(len(z)):
                    if z[j] > ZERO:
                        rows[at], columns[at], values[at] = r, first + j, z[j]
                        at += 1


@inlined
def _mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inlined
def bin_of(value):
    """floor(4 log2 value) + 64, from 0 to BINS - 1: by exponent and mantissa, so without rounding."""
    one = np.empty(1, np.float32)
    one[0] = value
    bits = one.view(np.int32)[0]
    exponent = (bits >> np.int32(23)) - np.int32(127)
    one.view(np.int32)[0] = (bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)
    mantissa = one[0]
    quarters = 0
    for i in range(3):
        quarters += mantissa >= ROOTS[i]
    return min(max(4 * np.int64(exponent) + quarters + 64, 0), BINS - 1)


@inlined
def into_top(values, positions, value, position):
    """Insert an activation into a list from the largest value down; of equal values the lower position comes first."""
    at = len(values) - 1
    if value < values[at] or (value == values[at] and position > positions[at]):
        return
    while at > 0 and (values[at - 1] < value or (values[at - 1] == value and positions[at - 1] > position)):
        values[at], positions[at] = values[at - 1], positions[at - 1]
        at -= 1
    values[at], positions[at] = value, position


@inlined
def into_sample(keys, values, positions, key, value, position):
    """Insert an activation into a list from the smallest key up."""
    at = len(keys) - 1
    if key >= keys[at]:
        return
    while at > 0 and keys[at - 1] > key:
        keys[at], values[at], positions[at] = keys[at - 1], values[at - 1], positions[at - 1]
        at -= 1
    keys[at], values[at], positions[at] = key, value, position


@compiled
def add(starts, order, rows, found, position_of, document_of, of_latents, last, fires, documents, histogram,
        top_values, top_positions, sample_keys, sample_values, sample_positions):
    """Add the activations of a part of a document or of several, listed row after row.

    starts, order: as `sort_by_column` leaves them. last: the last document in which each latent was active.
    """
    for i in prange(len(fires)):
        for e in order[starts[i] : starts[i + 1]]:
            row, value = rows[e], found[e]
            position = position_of[row]
            fires[i] += 1
            if document_of[row] != last[i]:
                last[i] = document_of[row]
                documents[i] += 1
            histogram[i, bin_of(value)] += 1
            into_top(top_values[i], top_positions[i], value, position)
            key = _mix(of_latents[i] + np.uint64(position))
            into_sample(sample_keys[i], sample_values[i], sample_positions[i], key, value, position)


@compiled
def merge(fires, documents, histogram, top_values, top_positions, sample_keys, sample_values, sample_positions,
          fires_b, documents_b, histogram_b, top_values_b, top_positions_b, sample_keys_b, sample_values_b, sample_positions_b):
    """Add what another part of the same half has left; the two parts have no document in common."""
    for i in prange(len(fires)):
        fires[i] += fires_b[i]
        documents[i] += documents_b[i]
        for j in range(histogram.shape[1]):
            histogram[i, j] += histogram_b[i, j]
        for j in range(top_values_b.shape[1]):
            if top_positions_b[i, j] >= 0:
                into_top(top_values[i], top_positions[i], top_values_b[i, j], top_positions_b[i, j])
        for j in range(sample_keys_b.shape[1]):
            if sample_positions_b[i, j] >= 0:
                into_sample(sample_keys[i], sample_values[i], sample_positions[i], sample_keys_b[i, j], sample_values_b[i, j],
                            sample_positions_b[i, j])


@inlined
def place(latents, positions, values, row_of, filled, out_positions, out_values):
    """Write each activation to the next free place of its latent; row_of: the number of a latent among those kept."""
    for e in range(len(latents)):
        at = filled[row_of[latents[e]]]
        out_positions[at], out_values[at] = positions[e], values[e]
        filled[row_of[latents[e]]] += 1


@compiled
def sort_each(starts, positions, values):
    """Put the activations of each latent in the order of their positions."""
    for i in prange(len(starts) - 1):
        first, last = starts[i], starts[i + 1]
        ordered = True
        for e in range(first + 1, last):
            ordered &= positions[e - 1] < positions[e]
        if not ordered:
            order = np.argsort(positions[first:last])
            positions[first:last] = positions[first:last][order]
            values[first:last] = values[first:last][order]

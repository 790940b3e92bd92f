"""From a job's settings to its SAE: the one place that calls an architecture's constructor."""
from collections.abc import Mapping
from typing import Any

import torch

from saesweep.arch.base import SparseAutoencoder
from saesweep.arch.ops.room import Room
from saesweep.arch.transcoder import transcode_
from saesweep.config.instantiate import NOT_ARGUMENTS, instantiate


def build(job: Mapping[str, Any], d_in: int, d_out: int | None = None) -> SparseAutoencoder:
    """The untrained SAE of these settings, initialised from their seed, or with d_out the transcoder; torch's global random
    state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job["seed"])
        sae = instantiate(job["arch"], leave=NOT_ARGUMENTS, d_in=d_in, d_sae=job["width"], sparsity=job["sparsity"])
        if d_out is not None:
            transcode_(sae, d_out, job.get("skip", False))  # absent in older configs
    sae.execution.dense = job["dense"]
    graphs = job.get("cuda_graphs", False)
    sae.execution.room = Room(fixed=graphs) if graphs or job.get("list_room") else None
    sae.execution.dead_room, sae.execution.graphs = Room(fixed=True) if graphs else None, graphs
    return sae

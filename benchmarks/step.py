"""The training step, against the peers': python -m benchmarks.step [--width 4096 16384] [--arch jumprelu topk gated].

All contestants train on the same batches, at an L0 of k. The activations are sparse sums of known directions, as in
conf/model/synthetic.yaml but larger. A step is forward, backward, clipping, optimizer, constraints and dead counters.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from torch import Tensor

from benchmarks import common, peers
from saesweep.data.synthetic import SyntheticSource
from saesweep.lm.hooks import HookPoint
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.l0_controller import Coefficient
from saesweep.training.member import Member
from saesweep.training.optimizer import UnitRowAdam, parameter_group

POINT = HookPoint("synthetic", "output")
ROOT = Path(__file__).resolve().parents[1]


def batches(d_in: int, batch: int, count: int, device: str) -> list[Tensor]:
    source = SyntheticSource(
        POINT, features=2048, d_in=d_in, l0=24, spread=20.0, noise=0.01, seed=0, window=batch * count, stream_seed=0
    )
    x = source.window(batch * count)[POINT]
    x -= x.mean(0)
    x /= x.square().sum(1).mean().sqrt()
    return list(x.to(device).split(batch))


def start_threshold(x: Tensor, W_enc_T: Tensor, k: int) -> float:
    """The threshold above which k latents per token are active on average before training."""
    pi = (x[:512] @ W_enc_T.T).flatten()
    return float(pi.kthvalue(int(pi.numel() * (1 - k / len(W_enc_T)))).values)


def settings(arch: str) -> dict[str, Any]:
    """The node of a file of conf/arch, with the keys of those that it is based on."""
    node = OmegaConf.load(ROOT / f"conf/arch/{arch}.yaml")
    based_on = [settings(other) for other in node.pop("defaults", []) if other != "_self_"]
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(*based_on, node)))


def ours(
    arch: str, x: Tensor, d_sae: int, k: int, dense: bool, eps: float = 1e-8, cold: bool = False, option: str = ""
) -> tuple[Member, Callable[[Tensor], None]]:
    """A member and its training step after any warm start; it begins at its target L0, or as initialised if `cold`; its
    coefficient is fixed, and Adam's eps is `eps`. option: clip_by_previous, list_room or cuda_graphs, to be on."""
    node = settings(arch)
    node["optimizer"]["clip_by_previous"] = option == "clip_by_previous"
    options = {key: option == key for key in ("list_room", "cuda_graphs")}
    job = {"arch": node, "seed": 0, "width": d_sae, "sparsity": k, "dense": dense, **options}
    sae = build(job, x.shape[1]).to(x.device)
    if sae.thresholded and not cold:
        meet_l0_(sae, x)
    coefficient = node["control"] and Coefficient(k, fixed=1e-3, **node["control"])
    member = Member(arch, POINT, sae, coefficient, node["optimizer"]).to(x.device)
    group = parameter_group(sae, node["optimizer"]) | {"lr": 1e-5, "eps": eps}  # an lr too small to change L0
    optimizer = UnitRowAdam([group])

    def step(x: Tensor) -> None:
        member.step_(x, 1.0)
        member.update_(optimizer, 0)

    return member, step


def compare(
    arch: str, d_in: int, d_sae: int, batch: int, k: int, rounds: int, precisions: Sequence[str], device: str
) -> None:
    data = batches(d_in, batch, 4, device)
    member, step = ours(arch, data[0], d_sae, k, dense=False)
    _, dense = ours(arch, data[0], d_sae, k, dense=True)
    threshold = start_threshold(data[0], member.sae.W_enc_T.detach(), k)
    others = peers.contestants(arch, data[0], d_sae, k, threshold, precisions)
    steps = {"saesweep": step, "saesweep dense=true": dense, **dict(others)}
    feeds = {name: cycle(data) for name in steps}
    times = common.round_robin({name: lambda n=name: steps[n](next(feeds[n])) for name in steps}, rounds)
    print(f"\n**{arch}**, width {d_sae:,}, d_in {d_in}, batch {batch:,}, L0 {member.sums.means()['l0']:.0f}, {rounds} rounds\n")
    print("| step | ms (smallest, largest) | tokens/s |\n| --- | --- | --- |", *common.rates(times, batch), sep="\n")
    for peer in dict.fromkeys(name.split()[0] for name in times if not name.startswith("saesweep")):
        best = min((name for name in times if name.startswith(peer)), key=lambda name: common.median(times, name))
        print(f"\n{common.median(times, best) / common.median(times, 'saesweep'):.1f} times as fast as {best}", end="")
    dense_flop = 10 * batch * d_in * d_sae  # five products of the dense step
    rate = dense_flop / common.median(times, "saesweep") / 1e9
    print(f"\n\n{rate:,.0f} GFLOP/s of the dense step's five products", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--arch", nargs="+", default=["jumprelu", "topk", "gated"])
    parser.add_argument("--d-in", type=int, default=640)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", nargs="*", default=peers.PRECISIONS, help="of the peers; no value: saesweep alone")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    common.prepare()
    print(common.machine())
    for width in args.width:
        reached = common.peak(args.batch, args.d_in, width, args.device)
        print(f"\nencoder product at width {width:,}: " + ", ".join(f"{k} {v / 1e9:,.0f} GFLOP/s" for k, v in reached.items()))
        for arch in args.arch:
            compare(arch, args.d_in, width, args.batch, args.k, args.rounds, args.precision, args.device)


if __name__ == "__main__":
    main()

"""Harvest of the default model's default site, against transformers alone: python -m benchmarks.harvest [--dtype auto].

The activations of all methods are checked to be bitwise equal. Peers without early stopping use one of the first two.
"""
from __future__ import annotations

import argparse

import torch
from omegaconf import OmegaConf

from benchmarks import common
from saesweep.lm import models
from saesweep.lm.hooks import hook_point, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma3_270m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    common.prepare()
    model = OmegaConf.to_container(OmegaConf.load(f"conf/model/{args.model}.yaml")) | {"dtype": args.dtype}
    lm, point, layer = models.load(model, args.device), hook_point(model, "resid", model["layer"]), model["layer"]
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(10, lm.tokenizer.vocab_size, (args.blocks, args.context), generator=random).to(args.device)

    @torch.no_grad()
    def with_head() -> torch.Tensor:
        return lm.module(tokens, output_hidden_states=True).hidden_states[layer + 1]

    @torch.no_grad()
    def without_head() -> torch.Tensor:
        return lm.module.base_model(tokens, output_hidden_states=True).hidden_states[layer + 1]

    methods = {
        "model(ids, output_hidden_states=True)": with_head,
        "the same without the LM head": without_head,
        "saesweep": lambda: read(lm.module, [point], tokens)[point],
    }
    times = common.round_robin(methods, args.rounds, warm_up=1)
    same = all(torch.equal(method(), methods["saesweep"]()) for method in methods.values())
    print(common.machine())
    print(f"\n{args.model}, {point}, {lm.module.dtype}, {args.blocks} blocks of {args.context} tokens, {args.rounds} rounds\n")
    print("| method | ms (smallest, largest) | tokens/s |\n| --- | --- | --- |", *common.rates(times, tokens.numel()), sep="\n")
    slow, fast = (common.median(times, name) for name in ("model(ids, output_hidden_states=True)", "saesweep"))
    print(f"\n{slow / fast:.1f} times the first; all activations {'bit-equal' if same else 'NOT EQUAL'}")


if __name__ == "__main__":
    main()

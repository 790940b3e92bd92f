"""Padding in the harvest, with blocks as they come and by length: python -m benchmarks.padding [--context 1024] [--median 500].

Share of the language model's positions that hold ordinary tokens, over many windows of a text, and CPU seconds of the forward
passes of the first windows, in pairs. --median: documents of log-normal lengths, as of web pages, in place of the text's own.
"""
from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from omegaconf import OmegaConf
from torch import Tensor

from benchmarks import common
from saesweep.data.harvest import harvest
from saesweep.data.micro_batches import by_length, micro_batches, ordinary_positions, positions
from saesweep.data.text import Corpus, pieces, tokenized
from saesweep.lm import models
from saesweep.lm.hooks import hook_point
from saesweep.lm.tokenizer import Tokenizer

Order = Callable[[Tensor, int], Tensor]
ORDERS: dict[str, Order] = {"as they come": lambda tokens, _: torch.arange(len(tokens)), "by length": by_length}


def documents(corpus: Corpus, tokenizer: Tokenizer, median: int | None, sigma: float) -> Iterator[list[int]]:
    """Token ids of each document; with a median, the text cut anew into log-normal lengths."""
    read = tokenized(corpus.documents("train"), tokenizer)
    if median is None:
        yield from read
        return
    random, ids = torch.Generator().manual_seed(0), itertools.chain.from_iterable(read)
    while True:
        length = math.exp(math.log(median) + sigma * float(torch.randn((), generator=random)))
        yield list(itertools.islice(ids, max(1, round(length))))


def windows(found: Iterator[list[int]], tokenizer: Tokenizer, context: int, size: int, pool_size: int) -> Iterator[Tensor]:
    """Blocks [blocks, context] with about `size` ordinary tokens, shuffled over a pool of documents."""
    random = torch.Generator().manual_seed(0)
    while pool := [block for ids in itertools.islice(found, pool_size) for block in pieces(ids, tokenizer, context)]:
        blocks = torch.stack(pool)[torch.randperm(len(pool), generator=random)]
        ends = ordinary_positions(blocks, tokenizer).sum(1).cumsum(0) // size
        yield from blocks.split(torch.unique_consecutive(ends, return_counts=True)[1].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma3_270m")
    parser.add_argument("--text", default="python_stdlib")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--median", type=int)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--window", type=int, default=65_536)
    parser.add_argument("--pool", type=int, default=256, help="documents")
    parser.add_argument("--windows", type=int, default=8, help="of which padding is counted")
    parser.add_argument("--pairs", type=int, default=3, help="windows that are timed both ways")
    parser.add_argument("--forward-tokens", type=int, default=2048)
    args = parser.parse_args()
    common.prepare()
    model, text = (OmegaConf.to_container(OmegaConf.load(f"conf/{kind}.yaml"))
                   for kind in (f"model/{args.model}", f"text/{args.text}"))
    tokenizer = models.load_tokenizer(model)
    found = documents(Corpus(text, 0), tokenizer, args.median, args.sigma)
    read = list(itertools.islice(windows(found, tokenizer, args.context, args.window, args.pool), args.windows))
    ordinary = sum(int(ordinary_positions(tokens, tokenizer).sum()) for tokens in read)
    print(common.machine(), f"\ncontext {args.context}, {len(read)} windows, {ordinary:,} tokens")
    for name, order in ORDERS.items():
        counted = sum(positions(tokens[order(tokens, args.forward_tokens)], args.forward_tokens) for tokens in read)
        print(f"{name}: {ordinary / counted:.3f} of the positions hold ordinary tokens")
    if args.pairs:
        _time(model, read[: args.pairs], args.forward_tokens)


def _time(model: dict, read: list[Tensor], forward_tokens: int) -> None:
    lm, point = models.load(model), hook_point(model, "resid", model["layer"])
    harvest(lm, [point], read[0][:1])
    ratios = []
    for tokens in read:
        seconds = {}
        for name, order in ORDERS.items():
            parts, start = micro_batches(tokens[order(tokens, forward_tokens)], forward_tokens), time.process_time()
            for part in parts:
                harvest(lm, [point], part)
            seconds[name] = time.process_time() - start
        ratios.append(seconds["as they come"] / seconds["by length"])
        rows = int(ordinary_positions(tokens, lm.tokenizer).sum())
        rates = ", ".join(f"{name} {rows / second:,.0f}" for name, second in seconds.items())
        print(f"tokens per CPU second: {rates}; {ratios[-1]:.2f} times", flush=True)
    print(f"{statistics.median(ratios):.2f} times as fast, median of {len(ratios)}")


if __name__ == "__main__":
    main()

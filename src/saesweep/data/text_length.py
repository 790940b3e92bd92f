"""Check that a text is long enough, from its tokens, before any weights are loaded."""
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from saesweep.config.settings import passes, unique_tokens
from saesweep.data.held_out import CALIBRATION, EVALUATION, HeldOut
from saesweep.data.micro_batches import tokens_wanted
from saesweep.data.text import Corpus, tokenized
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def require_enough_tokens(
    corpus: Corpus, tokenizer: Tokenizer, job: Mapping[str, Any], held_out: Callable[[int, int], HeldOut]
) -> None:
    """Raises UsageError where the text is too short for the training or evaluation of a job, or `context` does not fit.

    Of a stream only held-out documents are counted. `held_out(purpose, tokens)` gives the held-out blocks of the job.
    """
    context = job["context"]
    if context <= (tokenizer.bos is not None):
        raise UsageError(f"context={context}: a block has to hold a token besides BOS; write 128")
    if tokenizer.positions and context > tokenizer.positions:
        raise UsageError(f"context={context}: {job['model']['name']} was made for {tokenizer.positions} positions; write "
                         f"context={tokenizer.positions}")
    if corpus.finite:
        _require_training(corpus, tokenizer, job)
    try:
        held_out(EVALUATION, job["evaluation"]["tokens"])
        held_out(CALIBRATION, job["evaluation"]["calibration_tokens"])
    except (OSError, RuntimeError) as error:  # of the network
        raise UsageError(f"text={corpus.name}: its held-out documents cannot be read: {error}") from error


def _require_training(corpus: Corpus, tokenizer: Tokenizer, job: Mapping[str, Any]) -> None:
    """Counts training tokens until there are enough; with text.repeat=true any text is long enough."""
    tokens, batch_tokens, window, times = job["tokens"], job["batch_tokens"], job["activations"]["window"], passes(job)

    def need(steps: int) -> int:
        return tokens_needed(steps, batch_tokens, job["context"], window, tokenizer)

    asked, found = unique_tokens(job) // batch_tokens, 0
    wanted = need(asked)
    for ids in tokenized(corpus.one_pass("train"), tokenizer):
        found += sum(token >= 0 and token not in tokenizer.special for token in ids)
        if found >= wanted:
            return
    each = f" with activations.passes={times}" if times > 1 else ""
    has = f"text={corpus.name} has {found:,} training tokens, tokens={tokens:,}{each} are asked for"
    if found and corpus.repeat:
        log.warning(f"{has}: it is read {tokens / times / found:.1f} times")
        return
    steps = found // batch_tokens
    while steps > 0 and (short := need(steps) - found) > 0:
        steps -= max(1, short // (2 * batch_tokens))  # a step fewer needs at most two batches fewer
    left_over = f", and each window of {window:,} leaves less than a batch unused" if found * times >= tokens else ""
    fix = (f"set tokens={steps * times * batch_tokens} at most, activations.passes={math.ceil(asked * times / steps)}, "
           if steps > 0 else "")
    raise UsageError(f"{has}{left_over}: {fix}{corpus.repeat_key}=true, or use more text")


def tokens_needed(steps: int, batch_tokens: int, context: int, window: int, tokenizer: Tokenizer) -> int:
    """Training tokens that suffice for `steps` batches: each window may leave up to a batch less one token unused."""
    whole = max(1, tokens_wanted(steps * batch_tokens, context, window, tokenizer) // batch_tokens)  # batches of a full window
    windows = max(0, steps // whole - 2)  # the last ones, which may be smaller, are counted one by one
    left = steps - windows * whole
    while left > 0:
        windows += 1
        left -= max(1, tokens_wanted(left * batch_tokens, context, window, tokenizer) // batch_tokens)
    return steps * batch_tokens + windows * (batch_tokens - 1)

"""Which held-out predictions are scored."""
import pytest
import torch

from saesweep.data.held_out import HeldOut, Read
from saesweep.data.scored import scored
from saesweep.lm.tokenizer import byte_tokenizer
from saesweep.old_names import renewed

CONTEXT = 32
TOKENIZER = byte_tokenizer(True, None)


def held_out(sizes, context=CONTEXT):
    """Documents of so many tokens; the first block alone is for FVU."""
    blocks, documents = [], []
    for number, size in enumerate(sizes):
        for start in range(0, size, context - 1):
            ids = [1] + [3 + number % 250] * min(context - 1, size - start)
            blocks.append(torch.tensor(ids + [-1] * (context - len(ids))))
            documents.append(number)
    read = Read(torch.stack(blocks), torch.tensor(documents))
    return HeldOut(read.tokens[-1:], torch.zeros(1, dtype=torch.long), torch.tensor([sizes[-1]]), read, read.documents[-1:])


def drawn(of, tokens, blocks, seed=0):
    return scored(of, TOKENIZER, {"evaluation": {"lm_tokens": tokens, "lm_blocks": blocks}, "stream_seed": seed})


MANY = [4000, 1000, *[300] * 10, *[40] * 40, *[5] * 20]


@pytest.mark.slow
def test_every_token_has_the_same_chance_and_so_many_are_drawn_from_many_documents():
    of, times = held_out(MANY), 200
    by_document, by_position = torch.zeros(len(MANY)), torch.zeros(CONTEXT)
    for seed in range(times):
        found = drawn(of, 150, 40, seed)
        documents = found.tokens[found.at].sub(3).bincount(minlength=len(MANY))
        assert 100 < int(documents.sum()) < 200 and 30 < len(found.tokens) <= 40 and int((documents > 0).sum()) > 25
        by_document, by_position = by_document + documents, by_position + found.at.sum(0)
    rate = by_document / torch.tensor(MANY) / times / (150 / sum(MANY))
    groups = [rate[0], rate[1], rate[2:12].mean(), rate[12:52].mean(), rate[52:].mean()]
    assert groups == pytest.approx([1] * 5, abs=0.2)
    full = by_position[1:] / (of.read.tokens[:, 1:] > 0).sum(0)
    assert float(full.max() / full.min()) < 1.5 and by_position[0] == 0


def test_the_draw_is_of_the_seed_of_the_data_and_of_nothing_else():
    of = held_out(MANY)
    first, again, other = drawn(of, 300, 40), drawn(of, 300, 40), drawn(of, 300, 40, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.at.shape != other.at.shape or not torch.equal(first.at, other.at)
    assert torch.equal(torch.cat([at.sum(1) for _, at in first.parts(64)]), first.at.sum(1))


def test_blocks_end_with_their_last_scored_token_and_keep_the_document_numbers_of_the_others():
    of = held_out(MANY)
    found = drawn(of, 300, 40)
    for tokens, at, number in zip(*found, strict=True):
        last = int(at.nonzero().max())
        document = int(tokens[1]) - 3
        assert (tokens[: last + 1] >= 0).all() and (tokens[last + 1 :] == -1).all()
        assert number == 0 if document == len(MANY) - 1 else number > 0
    assert len(found.documents.unique()) == len({int(block[1]) for block in found.tokens})


def test_more_blocks_are_drawn_where_these_have_too_few_tokens():
    found = drawn(held_out([3100, 310]), 620, 2)
    assert len(found.tokens) > 20 and 500 < int(found.at.sum()) < 700


def test_without_a_number_of_blocks_all_tokens_of_the_first_ones_are_scored():
    of = held_out([20, 70])
    of = of._replace(tokens=of.read.tokens[[3, 0]], documents=torch.tensor([1, 0]), ordinary=torch.tensor([8, 20]))
    found = drawn(of, 8, None)
    assert torch.equal(found.tokens, of.tokens[:1]) and found.documents.tolist() == [1] and int(found.at.sum()) == 8
    assert len(drawn(of, 9, None).tokens) == 2 and drawn(of, 0, None) is None


def test_an_older_config_is_one_that_scores_whole_blocks():
    older = {"evaluation": {"lm_tokens": 8}}
    assert renewed({"evaluation": {"lm_tokens": 8, "lm_blocks": None}}) == older == renewed(older)
    assert renewed({"evaluation": {"lm_tokens": 8, "lm_blocks": 4}}) != older
    assert len(scored(held_out([20, 70]), TOKENIZER, older | {"stream_seed": 0}).tokens) == 1

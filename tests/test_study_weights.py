"""Scores that need the language model's weights, or embeddings of text."""
import numpy as np
import pytest
import torch
import transformers
from small import tiny
from study_halves import BYTES, collected, text_half

from saesweep.errors import UsageError
from saesweep.lm.unembedding import Unembedding, gain_of, unembedding
from saesweep.study.scores.logits import LogitScores, logits
from saesweep.study.scores.similarity import Around, SimilarityScores, context, intruder


def test_the_kurtosis_of_the_reference_and_what_the_largest_have_of_the_positive_sum():
    W_U = torch.zeros(10, 2)
    W_U[3, 0] = 10
    found = logits(torch.eye(2)[:1], Unembedding(W_U, torch.ones(2)))
    assert found.kurtosis[0] == pytest.approx(5.1111, abs=1e-4) and found.top10[0] == pytest.approx(1)
    assert found.highest[0, 0] == 3


def test_a_part_of_the_words_at_a_time_gives_the_same():
    torch.manual_seed(0)
    of, d = Unembedding(torch.randn(300, 8), torch.rand(8) + 0.5), torch.randn(5, 8)
    whole, parts = logits(d, of), logits(d, of, cells=5 * 11)
    exact = d * of.gain @ of.W_U.T
    exact = (exact - exact.mean(1, keepdim=True)).double()
    kurtosis = exact.pow(4).mean(1) / exact.square().mean(1).square() - 3
    share = exact.topk(10).values.sum(1) / exact.clamp(min=0).sum(1)
    for found in (whole, parts):
        assert found.kurtosis == pytest.approx(kurtosis.numpy(), abs=1e-4)
        assert found.top10 == pytest.approx(share.numpy(), abs=1e-5)
        assert (found.highest == exact.topk(10).indices.numpy()).all()
        assert (found.lowest == (-exact).topk(10).indices.numpy()).all()


def test_the_histogram_of_logits_worked_out_by_hand():
    W_U = torch.zeros(10, 2)
    W_U[3, 0] = 10  # less their mean: one 9 and nine -1
    found = logits(torch.eye(2)[:1], Unembedding(W_U, torch.ones(2)), histograms=True).histograms
    # 2^4 > 9, so that a fine bin is 1/128 wide: -1 is fine bin -128, 9 is 1152, 1281 fine bins in all, 26 to a bin
    assert found.start == [-1] and found.width == [26 / 128]
    assert found.counts.tolist() == [[9, *[0] * 48, 1]]
    assert found.centres(0)[[0, 49]] == pytest.approx([-1 + 13 / 128, -1 + 49.5 * 26 / 128])
    assert logits(torch.eye(2)[:1], Unembedding(W_U, torch.ones(2))).histograms is None


def test_histograms_have_all_words_between_the_lowest_and_the_highest_logit_whatever_the_parts():
    torch.manual_seed(0)
    W_U = torch.randn(300, 8) * torch.logspace(-9, 3, 300)[:, None]  # parts that grow by twelve orders of magnitude
    of, d = Unembedding(W_U, torch.rand(8) + 0.5), torch.randn(5, 8) * torch.tensor([1, 1e-6, 1e6, 0, 1])[:, None]
    whole, parts = (logits(d, of, cells, histograms=True) for cells in (2**24, 5 * 11))
    for found in (whole, parts):
        start, width, counts = found.histograms.start, found.histograms.width, found.histograms.counts
        assert counts.shape == (5, 50) and (counts.sum(1) == 300).all()
        end, least, greatest = start + 50 * width, found.lowest_values[:, 0], found.highest_values[:, 0]
        assert (start <= least).all() and (greatest < end).all()
        assert (end - start <= 1.06 * (greatest - least))[[0, 1, 2, 4]].all()
    exact = (d * of.gain @ W_U.T).double()
    exact -= exact.mean(1, keepdim=True)
    for row in (0, 1, 2, 4):
        edges = whole.histograms.start[row] + whole.histograms.width[row] * np.arange(51)
        by_numpy = np.histogram(exact[row].numpy(), edges)[0]
        for found in (whole, parts):
            assert np.abs(found.histograms.counts[row] - by_numpy).sum() <= 2  # rounding at an edge moves one word


def test_the_gain_of_each_kind_of_norm():
    gain = torch.rand(16) + 0.5
    layer = torch.nn.LayerNorm(16)
    layer.load_state_dict({"weight": gain, "bias": torch.rand(16)})
    gemma = transformers.models.gemma2.modeling_gemma2.Gemma2RMSNorm(16)
    gemma.load_state_dict({"weight": gain - 1})
    llama = transformers.models.llama.modeling_llama.LlamaRMSNorm(16)
    llama.load_state_dict({"weight": gain})
    for norm in (layer, gemma, llama):
        assert torch.allclose(gain_of(norm, 16), gain, atol=1e-4)


def test_a_language_model_has_one_final_norm_and_an_output_embedding():
    of = unembedding(tiny().module)
    assert of.W_U.shape[1] == len(of.gain) and torch.allclose(of.gain, torch.ones_like(of.gain), atol=1e-4)
    with pytest.raises(UsageError, match="leave logit scores out"):
        unembedding(type("Headless", (torch.nn.Module,), {"get_output_embeddings": lambda self: None})())


def test_an_sae_without_decoder_rows_has_no_logit_scores():
    text = text_half(["a" * 30])
    sae = collected(text, text, np.ones((30, 2)), np.ones((30, 2)))
    of = Unembedding(torch.randn(20, 4), torch.ones(4))
    assert np.isnan(LogitScores(of, lambda sae: None).of_latents(sae, np.array([1]))["logit_top10"]).all()
    assert LogitScores(of, lambda sae: torch.eye(4)[:2]).of_latents(sae, np.array([1]))["logit_kurtosis"].shape == (1,)


def test_the_context_similarity_of_the_reference():
    assert context(np.array([[1, 0], [1, 0], [0, 1.0]]), np.array([3, 2, 1.0])) == pytest.approx(0.5455, abs=1e-4)
    assert np.isnan(context(np.eye(2)[:1], np.ones(1)))


def test_the_intruder_is_found_where_examples_are_alike_and_by_chance_where_none_is():
    draw = np.random.default_rng(0)
    assert intruder(np.array([[1.0, 0, 0]] * 5), np.array([[0, 1.0, 0]]), 0) == 1
    assert intruder(np.ones((9, 3)), np.ones((9, 3)), 0) == pytest.approx(0.2)
    assert np.mean([intruder(draw.normal(size=(40, 8)), draw.normal(size=(40, 8)), k) for k in range(20)]) == pytest.approx(
        0.2, abs=0.05)
    assert np.isnan(intruder(np.ones((3, 2)), np.ones((3, 2)), 0))


def test_examples_are_embedded_by_the_text_around_their_token():
    draw = np.random.default_rng(0)
    text = text_half(["".join(draw.choice(list("abcd "), 300)) + "zzzzzzzz" * 8 for _ in range(60)], context=64)
    a = np.stack([text.tokens == ord("z") + 3, draw.random(len(text.tokens)) < 0.02], 1) * 1.0
    sae = collected(text, text, a, a)
    assert Around(text, BYTES)(0) == text.documents[0][:41]
    embed = lambda texts: np.array([[one.count("z") + 0.1, one.count("a") + 0.1] for one in texts])  # noqa: E731
    found = SimilarityScores(embed, BYTES, most=2, seed=0).of_latents(sae, np.array([0, 1]))
    assert found["context"][0] > 0.9 and found["intruder"][0] == 1
    assert np.isnan(SimilarityScores(embed, BYTES, most=1, seed=0).of_latents(sae, np.array([0, 1]))["context"]).sum() == 1

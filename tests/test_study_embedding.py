"""Embeddings of text: their definition, where the model comes from, and the scores of a sweep by them."""
import shutil

import numpy as np
import pytest
import torch
import transformers
from small import RESOURCES
from studied import asked, trained  # noqa: F401 fixtures
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from saesweep.errors import UsageError
from saesweep.storage import study_tables
from saesweep.study import run, settings
from saesweep.study.embedder import located
from saesweep.study.scores import embedding
from saesweep.study.scores.embedding import Embedder

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of one layer with random weights, whose tokens are words of one letter."""
    made = tmp_path_factory.mktemp("package") / "made_embedder/model"
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512, initializer_range=1.0)).save_pretrained(made)
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(made)
    return made


def embedder(folder, **more):
    return {"folder": str(folder), "install": "pip install made", "sha256": None} | more


def test_an_embedding_is_the_mean_of_the_last_hidden_states_at_length_1(folder):
    model = transformers.BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[1, *(WORDS.index(word) for word in "abc"), 2]])
    mean = model(ids).last_hidden_state[0].mean(0).detach()
    assert Embedder(folder)(["a b c"])[0] == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_texts_of_other_lengths_in_a_batch_change_nothing(folder, monkeypatch):
    monkeypatch.setattr(embedding, "BATCH", 3)
    embed, texts = Embedder(folder), ["a " * n + "b" for n in (5, 0, 9, 2, 400, 1, 7)]
    together = embed(texts)
    for text, found in zip(texts, together, strict=True):
        assert found == pytest.approx(embed([text])[0], abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(7), abs=1e-5) and embed([]).shape == (0, 16)


def test_the_model_is_in_a_folder_or_in_a_package_that_is_not_imported(folder, monkeypatch):
    assert located(embedder(folder)) == folder
    (folder.parent / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(folder.parents[1]))
    assert located(embedder("made_embedder/model")) == folder


def test_a_model_that_is_missing_or_another_one_is_refused_before_anything_is_read(folder, tmp_path):
    with pytest.raises(UsageError, match=r"embedder.folder=no_such/model is no folder with .*: pip install made$"):
        located(embedder("no_such/model"))
    with pytest.raises(UsageError, match=r"embedder.sha256=0a: .*model.safetensors has [0-9a-f]{64}; install it again, or"):
        located(embedder(folder, sha256="0a"))
    with pytest.raises(UsageError, match=r"embedder.folder=nowhere is no folder"):
        settings.settings(["embedding=true", "embedder.folder=nowhere"])
    assert settings.settings(["embedder.folder=nowhere"])["embedding"] is False
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UsageError, match="transformers cannot load it"):
        Embedder(tmp_path)


@pytest.mark.slow
def test_some_latents_of_a_sweep_are_embedded_and_the_others_lack_nothing(trained, folder, tmp_path):  # noqa: F811
    sweep = shutil.copytree(trained, tmp_path / "sweep")
    for other in ("tiny/mlp.1", "tiny/resid.1/jumprelu"):
        shutil.rmtree(sweep / other)
    words = ("tokens=4000", "dense_tokens=1000", "min_fires=10", "min_documents=3", "draws=20", "controls=[]", "logits=false",
             "dense_probes=false", "labels=none", "embedding=true", "embedding_latents=12", "embedder.sha256=null")
    assert run.run([sweep], asked(*words, f"embedder.folder={folder}"), RESOURCES).failed == {}
    scores = study_tables.read(sweep / "study/scores.csv")
    assert 0 < scores["context"].count() <= 4 and scores["intruder"].dropna().between(0, 1).all()  # 11, if all are embedded
    assert not scores["reason"].fillna("").str.contains("context").any()
    summary = study_tables.read(sweep / "study/summary.csv").set_index("score")
    assert 0 < summary.loc["context", "uniform"] <= 1

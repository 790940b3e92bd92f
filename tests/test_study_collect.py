"""Collecting the activations of whole sweeps: against a dense reference, and the same however it is divided or interrupted."""
import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from small import RESOURCES, tiny
from standin.cli import ENV
from studied import asked, collected, sweep, trained, trained_on_dictionary, written  # noqa: F401 fixtures
from torch import distributed as dist

from saesweep.data.harvest import harvest
from saesweep.errors import UsageError
from saesweep.lm.hooks import hook_point
from saesweep.storage import sweep_table
from saesweep.study import collect as stage
from saesweep.study import collector, plan, subjects
from saesweep.study.hits import HALVES
from saesweep.study.keys import keys
from saesweep.study.passes import passes
from saesweep.study.text import Portion, blocks_of
from saesweep.training.loaded import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):  # noqa: F811
    """The sweep, collected in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saesweep.study.text.PORTION", 100)
        folder = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "sweep")
        return folder, collected(folder)


def harvested(one, half, known={}):  # noqa: B006 computed once
    """A block at a time the positions of the ordinary tokens, and their rows at each hook point."""
    if half not in known:
        points = [hook_point(one.config["model"], site, 1) for site in ("resid", "mlp")]
        of, known[half] = one.half(half).text, []
        for block in range(int(of.block.max()) + 1):
            positions = np.flatnonzero(of.block == block)
            tokens = blocks_of(of, Portion(half, int(positions[0]), int(positions[-1]) + 1), 32)
            known[half].append((positions[of.ordinary[positions]], harvest(tiny(), points, tokens)))
    return known[half]


def dense(one, half, known={}):  # noqa: B006 computed once
    """[tokens, d_sae] in training units, by the SAE's own encode, a block at a time; and which positions are sinks."""
    if (one.folder, half) in known:
        return known[one.folder, half]
    sae, of = load(one.folder), one.half(half).text
    f, sinks = np.zeros((len(of.tokens), one.d_sae), np.float32), np.zeros(len(of.tokens), bool)
    for positions, rows in harvested(one, half):
        x = rows[sae.point]
        kept = sae.statistics.ordinary(x).numpy()
        f[positions[kept]] = sae.encode(x[kept]).numpy() / np.float32(sae.statistics.scale)
        sinks[positions[~kept]] = True
    known[one.folder, half] = f, sinks
    return f, sinks


def saes(found):
    return [one for one in found if one.control is None]


def test_every_sae_and_its_controls_are_collected(whole):
    _, found = whole
    assert [(one.path, one.control) for one in found] == [
        *((f"tiny/{place}/{arch}/4", None) for place in ("mlp.1", "resid.1") for arch in ("jumprelu", "topk")),
        *((f"tiny/{place}/jumprelu/4", control) for place in ("mlp.1", "resid.1") for control in ("random", "residual", "pca")),
    ]
    assert [one.d_sae for one in found] == [96] * 4 + [96, 48, 96] * 2
    assert all(one.folder.is_dir() and one.config["sparsity"] == 4 and one.metrics["d_sae"] == 96 for one in found)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("half", HALVES)
def test_what_is_kept_is_what_a_dense_reference_says(whole, half):
    for one in saes(whole[1]):
        kept, (f, sinks) = one.half(half), dense(one, half)
        assert kept.sinks.tolist() == np.flatnonzero(sinks).tolist() and len(kept.sinks) > 5
        assert kept.fires.tolist() == (f > 0).sum(0).tolist()
        assert kept.documents.tolist() == [len(set(kept.text.document[f[:, i] > 0])) for i in range(one.d_sae)]
        assert kept.histogram.sum(1).tolist() == kept.fires.tolist()
        for i in range(one.d_sae):
            (positions,) = np.nonzero(f[:, i])
            sample = positions[np.argsort(keys(0, np.array([i]), positions))[:100]]
            assert kept.sample.positions[i, : len(sample)].tolist() == sample.tolist()
            np.testing.assert_allclose(kept.sample.values[i, : len(sample)], f[sample, i], rtol=1e-4, atol=1e-6)
            top = np.sort(f[positions, i])[::-1][:20]
            np.testing.assert_allclose(kept.top.values[i, : len(top)], top, rtol=1e-4, atol=1e-6)
            assert (kept.top.positions[i, len(positions) :] == -1).all()


def test_all_activations_of_the_first_latents_in_the_sampling_order_and_of_each_range_of_frequencies_are_kept(whole):
    for one in saes(whole[1]):
        for half in HALVES:
            kept, (f, _) = one.half(half), dense(one, half)
            frequency = sweep_table.frequency(one.folder)[one.order]
            ends = (0, 1e-3, 0.01, 0.1, 2)
            ranges = [(low <= frequency) & (frequency < high) for low, high in itertools.pairwise(ends)]
            frequent = [one.order[some][:count] for some, count in zip(ranges, (25, 25, 25, 100), strict=True)]
            assert kept.hits.latents.tolist() == sorted({*one.order[:40].tolist(), *np.concatenate(frequent).tolist()})
            for i in kept.hits.latents:
                positions, values = kept.hits.of(int(i))
                assert positions.tolist() == np.flatnonzero(f[:, i]).tolist()
                np.testing.assert_allclose(values, f[positions, i], rtol=1e-4, atol=1e-6)
            with pytest.raises(KeyError):
                kept.hits.of(int(np.setdiff1d(one.order, kept.hits.latents)[0]))


def test_on_blocks_of_all_documents_the_activations_of_all_latents_are_kept(whole):
    for one in saes(whole[1]):
        kept, (f, _) = one.test, dense(one, "test")
        documents, blocks = (np.unique(column[kept.dense]) for column in (kept.text.document, kept.text.block))
        assert 300 <= len(kept.dense) < 350 and kept.dense_hits.latents.tolist() == list(range(96))
        assert len(documents) >= 8 and kept.dense.tolist() == np.flatnonzero(np.isin(kept.text.block, blocks)).tolist()
        for i in range(96):
            assert kept.dense_hits.of(i)[0].tolist() == kept.dense[np.flatnonzero(f[kept.dense, i])].tolist()


def test_neither_special_tokens_nor_sinks_are_measured(whole):
    for one in whole[1]:
        for half in (one.fit, one.test):
            listed = np.concatenate([half.hits.positions, half.sample.positions[half.sample.positions >= 0]])
            assert half.measured[listed].all() and half.measured.sum() == half.text.ordinary.sum() - len(half.sinks)
            assert not half.text.ordinary[half.text.index < 0].any()
            assert half.frequency.max() <= 1


def test_the_halves_are_shared_and_as_long_as_asked(whole):
    found = whole[1]
    assert len({id(one.fit.text) for one in found}) == 1
    read = sum(int(half.text.ordinary.sum()) for half in (found[0].fit, found[0].test))
    longest = max(np.bincount(half.text.document).max() for half in (found[0].fit, found[0].test))
    assert 3000 <= read < 3000 + longest
    assert not set(found[0].fit.text.documents) & set(found[0].test.text.documents)


def test_controls_have_the_target_l0_on_the_fit_half(whole):
    for one in whole[1]:
        l0 = one.fit.fires.sum() / one.fit.measured.sum()
        if one.control == "random":
            assert l0 == pytest.approx(4, rel=0.02)  # measured on whole micro-batches; the values at the edge are rounded
        elif one.control:
            assert l0 == pytest.approx(4, rel=1e-6)


def test_the_residual_basis_is_the_coordinates_that_are_largest_beside_their_spread(whole):
    one = next(one for one in whole[1] if (one.path, one.control) == ("tiny/resid.1/jumprelu/4", "residual"))
    sae, of = load(one.folder), one.fit.text
    tokens = blocks_of(of, Portion("fit", 0, len(of.tokens)), 32)
    x = harvest(tiny(), [sae.point], tokens)[sae.point]
    x = x[sae.statistics.ordinary(x)].double()
    z = ((x - x.mean(0)) / x.std(0)).abs()
    wanted = torch.zeros_like(z).scatter(1, z.topk(4).indices, 1).sum(0)
    assert np.abs(one.fit.fires - wanted.numpy()).max() <= 1


@pytest.mark.usefixtures("without_type_checks")
def test_an_sae_collected_alone_is_the_one_that_was_collected_with_others(whole, sweep):  # noqa: F811
    for job in ("tiny/mlp.1/jumprelu", "tiny/mlp.1/topk", "tiny/resid.1/jumprelu"):
        shutil.rmtree(sweep / job)
    collected(sweep, "controls=[]")
    file = "tiny/resid.1/topk/4/study/hits.safetensors"
    assert (sweep / file).read_bytes() == (whole[0] / file).read_bytes()


@pytest.mark.usefixtures("without_type_checks")
def test_two_sweeps_share_a_pass_and_an_sae_that_comes_later_is_read_alone(whole, sweep, tmp_path, monkeypatch):  # noqa: F811
    other = tmp_path / "other"
    shutil.move(sweep / "tiny/mlp.1", other / "tiny/mlp.1")
    runs, run = [], collector.Collector.run
    monkeypatch.setattr(collector.Collector, "run", lambda self, device: runs.append(len(self.subjects)) or run(self, device))
    assert stage.collect([sweep, other], asked(), RESOURCES) == {} and runs == [10]
    assert {**written(sweep), **written(other)}.keys() >= written(whole[0]).keys() - {"study/study.yaml"}
    for folder in (sweep, other):
        for name, content in written(folder).items():
            assert content == written(whole[0])[name], name
    (sweep / "tiny/resid.1/topk/4/study/hits.safetensors").unlink()
    collected(sweep)
    assert runs == [10, 1] and written(sweep) == {name: written(whole[0])[name] for name in written(sweep)}
    collected(sweep)
    assert runs == [10, 1]


class Killed(BaseException):
    pass


def killed_after(count, monkeypatch):
    """In the middle of the portion that follows so many."""
    rows, read = collector.Collecting.add, set()

    def add(self, half, name, x, positions):
        rows(self, half, name, x, positions)
        read.add((name, half.document[positions[0]]))
        if len(read) > count:
            raise Killed

    monkeypatch.setattr(collector.Collecting, "add", add)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("minutes", ["1e-9", "10"])
def test_a_kill_between_saves_costs_what_was_read_since_and_the_end_is_the_same(whole, sweep, monkeypatch, minutes):  # noqa: F811
    with monkeypatch.context() as patch:
        killed_after(3, patch)
        with pytest.raises(Killed):
            stage.collect([sweep], asked(f"save_minutes={minutes}"), RESOURCES)
    states = list(sweep.rglob("part-*.safetensors"))
    assert len(states) == (10 if minutes == "1e-9" else 0)
    reads, read = [], collector.Collector._read
    monkeypatch.setattr(collector.Collector, "_read", lambda self, number: reads.append(number) or read(self, number))
    collected(sweep)
    assert written(sweep) == {**written(whole[0]), "study/study.yaml": written(sweep)["study/study.yaml"]}
    assert reads[0] == (3 if states else 0)
    assert not list(sweep.rglob("state"))


@pytest.mark.usefixtures("without_type_checks")
def test_ctrl_c_saves_what_was_read(whole, sweep, monkeypatch):  # noqa: F811
    reads, read = [], collector.Collector._read

    def interrupted(self, number):
        read(self, number)
        reads.append(number)
        if len(reads) == 3:
            self.whole = True  # as when the signal comes at the end of the portion
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collector.Collector, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.collect([sweep], asked(), RESOURCES)
    monkeypatch.setattr(collector.Collector, "_read", lambda self, number: reads.append(number) or read(self, number))
    collected(sweep)
    assert reads == list(range(len(reads))) and written(sweep) == written(whole[0])


@pytest.mark.usefixtures("without_type_checks")
def test_an_sae_that_fails_fails_alone_and_the_same_command_retries_it(whole, sweep, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr("saesweep.arch.topk.TopK.list_active", lambda self, x: 1 / 0)
        failed = stage.collect([sweep], asked("controls=[]"), RESOURCES)
    assert {label: type(error) for label, error in failed.items()} == {
        "tiny/mlp.1/topk/4": ZeroDivisionError, "tiny/resid.1/topk/4": ZeroDivisionError}
    assert len(list(sweep.rglob("hits.safetensors"))) == 2
    collected(sweep)
    assert written(sweep) == written(whole[0])


def on_a_rank(rank, folder, meet):
    import saesweep.study.text

    saesweep.study.text.PORTION = 100
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    stage.collect([folder], asked(), RESOURCES)
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_two_ranks_collect_what_one_collects_also_after_a_kill(whole, sweep, tmp_path, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        killed_after(3, patch)
        with pytest.raises(Killed):
            stage.collect([sweep], asked("save_minutes=1e-9"), RESOURCES)
    words = [sys.executable, __file__]
    ranks = [warm.popen([*words, str(rank), str(sweep), str(tmp_path / "meet")], tmp_path, ENV) for rank in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert written(sweep) == written(whole[0])


def test_other_settings_are_refused_and_replaced_with_overwrite(whole, sweep):  # noqa: F811
    shutil.copytree(whole[0], sweep, dirs_exist_ok=True)
    with pytest.raises(UsageError, match=r"(?s)10 .* with other settings.*tokens: 3000 there, 3300 here.*overwrite=true"):
        stage.collect([sweep], asked("tokens=3300"), RESOURCES)
    with pytest.raises(UsageError, match="features: 10 there, 11 here"):
        stage.collect([sweep], asked("features=11"), RESOURCES)
    stage.collect([sweep], asked("features=9", "min_fires=3"), RESOURCES)  # more are kept than are asked for
    more = collected(sweep, "tokens=3300", "overwrite=true")
    assert sum(int(half.text.ordinary.sum()) for half in (more[0].fit, more[0].test)) >= 3300
    assert len(list((sweep / "study").glob("text-*"))) == 1


def test_an_sae_that_was_trained_again_is_refused(whole, sweep):  # noqa: F811
    shutil.copytree(whole[0], sweep, dirs_exist_ok=True)
    topk, relu = (sweep / f"tiny/resid.1/{arch}/4/sae/sae_weights.safetensors" for arch in ("topk", "jumprelu"))
    shutil.copy(relu, topk)
    for again in (lambda: stage.collect([sweep], asked(), RESOURCES), lambda: stage.collected(sweep)):
        with pytest.raises(UsageError, match=r"(?s)tiny/resid\.1/topk/4 .*weights: .* this SAE was trained again"):
            again()


def test_changed_text_is_refused_before_a_weight_is_loaded(trained, sweep, monkeypatch):  # noqa: F811
    monkeypatch.setattr(RESOURCES, "_kept", {})
    text = trained.parent / "text.jsonl"
    before = text.read_text()
    try:
        text.write_text(before + '{"text": "one more"}\n')
        monkeypatch.setattr("saesweep.lm.models.load", lambda *_: pytest.fail("a weight was loaded"))
        with pytest.raises(UsageError, match="was trained on other text or weights of the same name"):
            stage.collect([sweep], asked(), RESOURCES)
    finally:
        text.write_text(before)
        RESOURCES._kept.clear()


def test_a_folder_without_finished_saes_is_refused(tmp_path, trained):  # noqa: F811
    with pytest.raises(UsageError, match="nothing is not a folder: give the folder of a sweep"):
        stage.collect([tmp_path / "nothing"], asked(), RESOURCES)
    with pytest.raises(UsageError, match=r"holds no finished SAE: give .*; there are 4 below it, in sweeps such as .*/sweep"):
        stage.collect([trained.parent], asked(), RESOURCES)
    with pytest.raises(UsageError, match="are not collected yet; run saesweep study"):
        stage.collected(trained)


@pytest.mark.usefixtures("without_type_checks")
def test_a_cache_on_disk_gives_the_same_and_spares_the_language_model(whole, sweep, monkeypatch):  # noqa: F811
    made = subjects.of_sweep(sweep, ["random", "residual", "pca"], 0)
    for one in made:
        one.config["cache"] = {"name": "disk", "folder": str(sweep / "cache")}
    monkeypatch.setattr(subjects, "of_sweep", lambda *_: made)
    stage.collect([sweep], asked(), RESOURCES)
    assert written(sweep) == written(whole[0])
    for one in made:
        one.file.unlink()
    monkeypatch.setattr("saesweep.data.harvest.LanguageModelSource.read", lambda *_: pytest.fail("the model was run"))
    stage.collect([sweep], asked(), RESOURCES)
    assert written(sweep) == written(whole[0])


def test_a_known_dictionary_is_read_without_text(trained_on_dictionary, tmp_path):  # noqa: F811
    found = collected(Path(shutil.copytree(trained_on_dictionary, tmp_path / "sweep")), "tokens=2000")
    one = next(one for one in found if one.path.endswith("topk/4"))
    assert one.fit.fires.sum() == 4 * one.fit.measured.sum() and set(one.fit.text.documents) == {""}
    assert sum(len(half.text.tokens) for half in (one.fit, one.test)) == 2048
    from saesweep.study.dictionary import FromDictionary

    source = FromDictionary(one.config, asked("tokens=2000"), load(one.folder).point)
    (rows,) = source.rows(one.test.text, [Portion("test", 0, len(one.test.text.tokens))], [load(one.folder).point])
    (x,) = rows.values()
    a = source.features("test")
    assert float((x - a @ source.source.dictionary).std()) == pytest.approx(0.02, rel=0.05)
    f = load(one.folder).encode(x)
    assert one.test.fires.sum() == int((f > 0).sum()) - sum(int((f[p] > 0).sum()) for p in one.test.sinks)


def test_the_plan_says_what_would_be_read_and_loads_nothing(sweep, monkeypatch):  # noqa: F811
    monkeypatch.setattr("saesweep.lm.models.load", lambda *_: pytest.fail("a weight was loaded"))
    monkeypatch.setattr("saesweep.training.loaded.load_file", lambda *_: pytest.fail("an SAE was loaded"))
    said = plan.plan([sweep], asked())
    assert said.startswith("tiny: one pass for 4 SAEs and 6 controls at 2 hook points; 10 latents of each are scored\nfit: ")
    assert "tiny/resid.1/topk/4" in said and "memory: about" in said and not list(sweep.rglob("study"))


@pytest.mark.usefixtures("without_type_checks")
def test_the_lists_in_memory_are_bounded(whole, sweep, monkeypatch):  # noqa: F811
    monkeypatch.setattr(collector, "LISTED", 2000)
    most, save = [], collector.Collector._save
    monkeypatch.setattr(collector.Collector, "_save", lambda self: most.append(self._listed()) or save(self))
    collected(sweep)
    assert max(most) < sum(most) / 4 and written(sweep) == written(whole[0])  # the lists of one document exceed 2,000
    assert passes(subjects.of_sweep(sweep, ["pca"], 0), asked(), RESOURCES) == []


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

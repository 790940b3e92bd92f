"""Exports of a study: the fields that Neuronpedia's importer reads, and one line of JSON per latent."""
import gzip
import json

import made_pages
import numpy as np
import pytest

from saesweep.errors import UsageError
from saesweep.study.examples import Places
from saesweep.study.export import jsonl, neuronpedia, read, records, saedashboard
from saesweep.study.export.neuronpedia import About
from saesweep.study.hits import LEFT

pytestmark = pytest.mark.slow

# Names and types of neuronpedia_utils/db_models (hijohnnylin/neuronpedia at ebb8426), and of SAEDashboard's
# neuronpedia_dashboard.py, in order: s text, i whole number, f number, b truth, d date, o row of another table; a question
# mark: or nothing; brackets: a list
FIELDS = {
    "release": "name s, description s, creatorName s, creatorId s, visibility s, isNewUi b, featured b, descriptionShort s?, "
               "urls [s], creatorEmail s?, creatorNameShort s?, defaultSourceSetName s?, defaultSourceId s?, "
               "defaultUmapSourceIds [s], createdAt d",
    "model": "id s, instruct b, creatorId s, displayNameShort s, displayName s, tlensId s?, dimension i?, visibility s, "
             "defaultSourceSetName s?, defaultSourceId s?, inferenceEnabled b, layers i, neuronsPerLayer i, createdAt d, "
             "owner s, updatedAt d, website s?",
    "sourceset": "modelId s, name s, creatorId s, hasDashboards b, visibility s, description s, type s, creatorName s, "
                 "urls [s], creatorEmail s?, releaseName s?, defaultOfModelId s?, defaultRange i, defaultShowBreaks b, "
                 "showDfa b, showCorrelated b, showHeadAttribution b, showUmap b, createdAt d",
    "source": "id s, modelId s, setName s, creatorId s, hasDashboards b, inferenceEnabled b, inferenceHosts [s], "
              "saelensConfig s?, saelensRelease s?, saelensSaeId s?, hfRepoId s?, hfFolderId s?, visibility s, "
              "defaultOfModelId s?, hasUmap b, hasUmapLogSparsity b, hasUmapClusters b, num_prompts i?, "
              "num_tokens_in_prompt i?, dataset s?, notes s?, createdAt d",
    "features": "modelId s, layer s, index s, creatorId s?, createdAt d, maxActApprox f?, hasVector b, vector [f], "
                "vectorLabel s?, vectorDefaultSteerStrength f?, hookName s?, topkCosSimIndices [i], topkCosSimValues [f], "
                "neuron_alignment_indices [i], neuron_alignment_values [f], neuron_alignment_l1 [f], "
                "correlated_neurons_indices [i], correlated_neurons_pearson [f], correlated_neurons_l1 [f], "
                "correlated_features_indices [i], correlated_features_pearson [f], correlated_features_l1 [f], neg_str [s], "
                "neg_values [f], pos_str [s], pos_values [f], frac_nonzero f, freq_hist_data_bar_heights [f], "
                "freq_hist_data_bar_values [f], logits_hist_data_bar_heights [f], logits_hist_data_bar_values [f], "
                "decoder_weights_dist [f]",
    "activations": "id s, tokens [s], index s, layer s, modelId s, maxValue f, maxValueTokenIndex i, minValue f, values [f], "
                   "creatorId s, dataSource s?, dataIndex s?, dfaValues [f], dfaTargetIndex i?, dfaMaxValue f?, createdAt d, "
                   "lossValues [f], logitContributions s?, binMin f?, binMax f?, binContains f?, qualifyingTokenIndex i?",
    "saedashboard": "model_id s, layer i, sae_set s, features [o]",
    "saedashboard feature": "feature_index i, neuron_alignment_indices [i], neuron_alignment_values [f], "
                            "neuron_alignment_l1 [f], correlated_neurons_indices [i], correlated_neurons_l1 [f], "
                            "correlated_neurons_pearson [f], correlated_features_indices [i], correlated_features_l1 [f], "
                            "correlated_features_pearson [f], neg_str [s], neg_values [f], pos_str [s], pos_values [f], "
                            "frac_nonzero f, freq_hist_data_bar_values [f], freq_hist_data_bar_heights [f], "
                            "logits_hist_data_bar_heights [f], logits_hist_data_bar_values [f], n_prompts_total i, "
                            "n_tokens_in_prompt i, dataset s, decoder_weights_dist [f], activations [o]",
    "saedashboard activation": "bin_min f, bin_max f, bin_contains f, tokens [s], values [f], qualifying_token_index i",
    "explanations": "id s, modelId s, layer s, index s, description s, authorId s, embedding [f]?, triggeredById s?, "
                    "typeName s?, explanationModelName s?, notes s?, createdAt d",
}
TYPES = {"s": str, "d": str, "i": int, "f": float, "b": bool, "o": dict}


@pytest.fixture(scope="module")
def study():
    return made_pages.made()


@pytest.fixture(scope="module")
def rows(study, tmp_path_factory):
    """By table the rows of the first SAE."""
    out = tmp_path_factory.mktemp("export")
    folders = neuronpedia.write(study.saes, out, About("tiny-model", "me", "my sweep", "saesweep study"))
    assert [str(folder.relative_to(out)) for folder in folders][:2] == [
        "tiny-model/1-resid-my-sweep__topk-16", "tiny-model/1-resid-my-sweep__topk-32"]
    found = {file.stem: [json.loads(file.read_text())] for file in folders[0].glob("*.jsonl")}
    for kind in ("features", "activations", "explanations"):
        text = b"".join(gzip.decompress(file.read_bytes()) for file in sorted(folders[0].glob(f"{kind}/batch-*.jsonl.gz")))
        found[kind] = [json.loads(line) for line in text.splitlines()]
    (folder, *_) = saedashboard.write(study.saes, out / "sd", About("tiny-model", "me", "my sweep", "saesweep study"))
    assert folder.name == "tiny-model_resid-my-sweep_1-resid-my-sweep__topk-16"
    found["saedashboard"] = [json.loads(file.read_text()) for file in sorted(folder.glob("batch-*.json"))]
    found["saedashboard feature"] = [row for batch in found["saedashboard"] for row in batch["features"]]
    found["saedashboard activation"] = [one for row in found["saedashboard feature"] for one in row["activations"]]
    return found


def fits(value, kind: str) -> bool:
    if kind.endswith("?"):
        return value is None or fits(value, kind[:-1])
    if kind.startswith("["):
        return isinstance(value, list) and all(fits(one, kind[1:-1]) for one in value)
    return type(value) is TYPES[kind]


@pytest.mark.parametrize("table", FIELDS)
def test_every_row_has_the_fields_and_types_of_the_table(rows, table):
    fields = dict(field.split() for field in FIELDS[table].split(", "))
    assert rows[table]
    for row in rows[table]:
        assert list(row) == list(fields)
        wrong = [key for key, kind in fields.items() if not fits(row[key], kind)]
        assert not wrong, {key: row[key] for key in wrong}


@pytest.mark.parametrize("layout, kind, ending", [(neuronpedia, "activations", ".jsonl.gz"), (saedashboard, ".", ".json")])
def test_an_export_of_fewer_latents_leaves_no_batch_of_the_one_before(study, tmp_path, monkeypatch, layout, kind, ending):
    monkeypatch.setattr(neuronpedia, "BATCH", 4)
    about, sae = About("tiny-model", "me", "my sweep", ""), study.saes[0]
    (folder,) = layout.write([sae], tmp_path, about)
    assert len(list((folder / kind).glob(f"batch-*{ending}"))) == -(-len(sae.scores) // 4) > 1
    (folder / kind / f"batch-mine{ending}").write_text("kept")
    layout.write([sae._replace(scores=sae.scores.head(4))], tmp_path, about)
    left = {file.name for file in (folder / kind).iterdir() if file.name.startswith("batch-")}
    assert left == {f"batch-0{ending}", f"batch-mine{ending}"}


def test_a_field_that_the_table_does_not_have_is_refused():
    with pytest.raises(KeyError, match="colour"):
        records.record(records.MODEL, colour="red")


def test_features_are_in_raw_units_with_their_words_and_neighbours(study, rows):
    sae, by = study.saes[0], {int(row["index"]): row for row in rows["features"]}
    assert set(by) == set(sae.latents)
    top = sae.collected.test.top.values[0, 0]
    assert by[0]["maxActApprox"] == pytest.approx(2 * top, rel=1e-4)  # the made SAE has 2 raw units in a training unit
    assert by[0]["frac_nonzero"] == pytest.approx(sae.scores.set_index("latent").loc[0, "frequency"])
    assert by[0]["pos_str"][:3] == [" " + word for word in made_pages.VOCABULARY[:3]] and by[0]["pos_values"][0] == 3
    assert sum(by[0]["freq_hist_data_bar_heights"]) == sae.collected.test.fires[0] and len(by[0]["topkCosSimIndices"]) == 10
    assert by[0]["logits_hist_data_bar_heights"] == [10, 25, 0, 1, 4]
    assert by[0]["logits_hist_data_bar_values"] == [-0.75, -0.25, 0.25, 0.75, 1.25]  # centres
    of_sd = next(row for row in rows["saedashboard feature"] if row["feature_index"] == 0)
    assert of_sd["logits_hist_data_bar_values"] == by[0]["logits_hist_data_bar_values"]
    assert of_sd["logits_hist_data_bar_heights"] == by[0]["logits_hist_data_bar_heights"]


def test_activations_are_the_strongest_and_five_of_each_interval(study, rows):
    mine = [row for row in rows["activations"] if row["index"] == "5"]
    top = [row for row in mine if row["binMin"] == -1]
    half = study.saes[0].collected.test
    able = half.top.positions[5][Places(half.text).left(half.top.positions[5]) >= LEFT]  # others are no examples
    strongest = half.top.values[5][half.top.positions[5] == able[0]]
    assert len(top) == 20 and top[0]["values"][top[0]["qualifyingTokenIndex"]] == pytest.approx(2 * strongest[0], rel=1e-4)
    for row in mine:
        assert len(row["tokens"]) == len(row["values"]) and row["values"][row["maxValueTokenIndex"]] == row["maxValue"]
        if row["binMin"] != -1:
            assert row["binMin"] <= row["values"][row["qualifyingTokenIndex"]] * (1 + 1e-4) <= row["binMax"] * (1 + 2e-4)
    bins = {row["binMin"]: row["binContains"] for row in mine if row["binMin"] != -1}
    assert 0.9 < sum(bins.values()) <= 1 + 1e-9
    assert len({row["id"] for row in rows["activations"]}) == len(rows["activations"])


def test_the_files_of_saedashboard_say_what_those_of_neuronpedia_say(rows):
    assert [row["feature_index"] for row in rows["saedashboard feature"]] == [int(row["index"]) for row in rows["features"]]
    assert len(rows["saedashboard activation"]) == len(rows["activations"])
    for one, other in zip(rows["saedashboard activation"], rows["activations"], strict=True):
        assert (one["values"], one["bin_min"], one["qualifying_token_index"]) == (
            other["values"], other["binMin"], other["qualifyingTokenIndex"])


def test_rules_and_explanations_are_named_by_who_wrote_them(rows):
    of_0 = {row["typeName"]: row for row in rows["explanations"] if row["index"] == "0"}
    assert of_0["saesweep"]["explanationModelName"] == "a model" and of_0["saesweep_rules"]["description"] == "fires on `self`"


def test_jsonl_has_a_line_per_latent_with_scores_and_examples(study, tmp_path):
    lines = [json.loads(line) for line in jsonl.write(study.saes, tmp_path).read_text().splitlines()]
    assert len(lines) == sum(len(sae.latents) for sae in study.saes)
    one, row = lines[0], study.saes[0].scores.iloc[0]
    assert (one["path"], one["latent"]) == ("tiny/resid.1/topk/16", int(row["latent"]))
    assert one["scores"]["rule"] == pytest.approx(row["rule"]) and one["scale"] == 2
    assert {"fires on `self`"} == {line["words"]["rule_words"] for line in lines if line["latent"] == 0}
    for line in lines:
        for window in line["examples"]:
            assert window["values"][window["at"]] > 0 and len(window["tokens"]) == len(window["values"])
    assert np.isfinite([value for line in lines for value in line["scores"].values() if value is not None]).all()


def test_a_sweep_without_scores_is_refused(tmp_path):
    with pytest.raises(UsageError, match="are not scored yet; run saesweep study"):
        read.finished(tmp_path, logits=False)

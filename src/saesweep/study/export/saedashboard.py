"""The layout that SAEDashboard writes and Neuronpedia's converter reads: a file of JSON per 128 latents.

    <model>_<set>_<layer>__<SAE>/batch-<n>.json
        model_id, layer, sae_set
        features[]           feature_index, words and their logits, histogram, density, prompts
            activations[]    tokens, values, bounds of the interval and its share

What the rows hold is that of neuronpedia.py. Field names and types are those of neuronpedia_dashboard.py in
jbloomAus/SAEDashboard, sae_dashboard/neuronpedia, at db4839a.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from saesweep.runtime import atomic
from saesweep.study.export.neuronpedia import About, Names, Row, batches, drop_batches
from saesweep.study.pages.of_sae import OfSAE

SHARED = (  # fields of a feature that both layouts have
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
    "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_indices", "correlated_features_l1",
    "correlated_features_pearson", "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero",
    "freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
)
ACTIVATION = {"bin_min": "binMin", "bin_max": "binMax", "bin_contains": "binContains", "tokens": "tokens", "values": "values",
              "qualifying_token_index": "qualifyingTokenIndex"}


def write(saes: Sequence[OfSAE], out: Path, about: About) -> list[Path]:
    """The folders of the SAEs."""
    return [_write(sae, names, out, about) for sae, names in zip(saes, Names.of(saes, about), strict=True)]


def _write(sae: OfSAE, names: Names, out: Path, about: About) -> Path:
    text, config = sae.collected.test.text, sae.collected.config
    prompts = {"n_prompts_total": int(text.block.max(initial=-1)) + 1, "n_tokens_in_prompt": config.get("context") or 0,
               "dataset": (config.get("text") or {}).get("name") or "", "decoder_weights_dist": []}
    whole = {"model_id": names.model, "layer": int(config["layer"]), "sae_set": names.set}
    folder = out / f"{names.model}_{names.set}_{names.source}"
    count = 0
    for rows in batches(sae, names, {"creatorId": about.creator, "createdAt": ""}):
        content = whole | {"features": _features(rows, prompts)}
        atomic.write(folder / f"batch-{count}.json", json.dumps(content, ensure_ascii=False, allow_nan=False))
        count += 1
    drop_batches(folder, ".json", count)
    return folder


def _features(rows: Mapping[str, Sequence[Row]], prompts: Row) -> list[Row]:
    """rows: of neuronpedia.batches."""
    examples: dict[str, list[Row]] = {}
    for row in rows["activations"]:
        examples.setdefault(row["index"], []).append({key: row[theirs] for key, theirs in ACTIVATION.items()})
    return [{"feature_index": int(row["index"]), **{key: row[key] for key in SHARED}, **prompts,
             "activations": examples.get(row["index"], [])} for row in rows["features"]]

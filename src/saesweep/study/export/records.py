"""The rows of Neuronpedia's tables: their fields in order, with what a field holds that we do not fill.

Field names and types are those of the db_models in hijohnnylin/neuronpedia, utils/neuronpedia-utils, at ebb8426.
"""
from __future__ import annotations

from typing import Any

REQUIRED = None  # a field that every row gives
Fields = dict[str, Any]

RELEASE: Fields = {
    "name": REQUIRED, "description": REQUIRED, "creatorName": REQUIRED, "creatorId": REQUIRED, "visibility": "PUBLIC",
    "isNewUi": False, "featured": False, "descriptionShort": None, "urls": [], "creatorEmail": None, "creatorNameShort": None,
    "defaultSourceSetName": None, "defaultSourceId": None, "defaultUmapSourceIds": [], "createdAt": REQUIRED,
}
MODEL: Fields = {
    "id": REQUIRED, "instruct": False, "creatorId": REQUIRED, "displayNameShort": REQUIRED, "displayName": REQUIRED,
    "tlensId": None, "dimension": None, "visibility": "PUBLIC", "defaultSourceSetName": None, "defaultSourceId": None,
    "inferenceEnabled": False, "layers": 0, "neuronsPerLayer": 0, "createdAt": REQUIRED, "owner": "", "updatedAt": REQUIRED,
    "website": None,
}
SOURCE_SET: Fields = {
    "modelId": REQUIRED, "name": REQUIRED, "creatorId": REQUIRED, "hasDashboards": True, "visibility": "PUBLIC",
    "description": "", "type": "", "creatorName": REQUIRED, "urls": [], "creatorEmail": None, "releaseName": REQUIRED,
    "defaultOfModelId": None, "defaultRange": 1, "defaultShowBreaks": True, "showDfa": False, "showCorrelated": False,
    "showHeadAttribution": False, "showUmap": False, "createdAt": REQUIRED,
}
SOURCE: Fields = {
    "id": REQUIRED, "modelId": REQUIRED, "setName": REQUIRED, "creatorId": REQUIRED, "hasDashboards": True,
    "inferenceEnabled": False, "inferenceHosts": [], "saelensConfig": None, "saelensRelease": None, "saelensSaeId": None,
    "hfRepoId": None, "hfFolderId": None, "visibility": "PUBLIC", "defaultOfModelId": None, "hasUmap": False,
    "hasUmapLogSparsity": False, "hasUmapClusters": False, "num_prompts": None, "num_tokens_in_prompt": None, "dataset": None,
    "notes": None, "createdAt": REQUIRED,
}
FEATURE: Fields = {
    "modelId": REQUIRED, "layer": REQUIRED, "index": REQUIRED, "creatorId": REQUIRED, "createdAt": REQUIRED,
    "maxActApprox": REQUIRED, "hasVector": False, "vector": [], "vectorLabel": None, "vectorDefaultSteerStrength": 10.0,
    "hookName": None, "topkCosSimIndices": [], "topkCosSimValues": [], "neuron_alignment_indices": [],
    "neuron_alignment_values": [], "neuron_alignment_l1": [], "correlated_neurons_indices": [],
    "correlated_neurons_pearson": [], "correlated_neurons_l1": [], "correlated_features_indices": [],
    "correlated_features_pearson": [], "correlated_features_l1": [], "neg_str": [], "neg_values": [], "pos_str": [],
    "pos_values": [], "frac_nonzero": REQUIRED, "freq_hist_data_bar_heights": [], "freq_hist_data_bar_values": [],
    "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [], "decoder_weights_dist": [],
}
ACTIVATION: Fields = {
    "id": REQUIRED, "tokens": REQUIRED, "index": REQUIRED, "layer": REQUIRED, "modelId": REQUIRED, "maxValue": REQUIRED,
    "maxValueTokenIndex": REQUIRED, "minValue": REQUIRED, "values": REQUIRED, "creatorId": REQUIRED, "dataSource": None,
    "dataIndex": None, "dfaValues": [], "dfaTargetIndex": None, "dfaMaxValue": None, "createdAt": REQUIRED, "lossValues": [],
    "logitContributions": None, "binMin": None, "binMax": None, "binContains": None, "qualifyingTokenIndex": None,
}
EXPLANATION: Fields = {
    "id": REQUIRED, "modelId": REQUIRED, "layer": REQUIRED, "index": REQUIRED, "description": REQUIRED, "authorId": REQUIRED,
    "embedding": None, "triggeredById": None, "typeName": REQUIRED, "explanationModelName": REQUIRED, "notes": None,
    "createdAt": REQUIRED,
}


def record(fields: Fields, **values: Any) -> dict[str, Any]:
    """A row with all fields. Raises KeyError for a field that the table does not have."""
    if unknown := values.keys() - fields.keys():
        raise KeyError(f"{sorted(unknown)}")
    return {key: values.get(key, default) for key, default in fields.items()}

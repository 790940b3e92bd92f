"""The keys of conf/study and conf/explainer, with their types and ranges."""
import re
from collections.abc import Mapping, MutableMapping
from typing import Annotated, Any

from saesweep.config.logger_keys import refuse_secrets
from saesweep.config.ranges import Count, Index, NotNegative, OneOf, Positive, Share, SomeOf, Text
from saesweep.config.walk import Keys, require, typed
from saesweep.errors import UsageError

CONTROLS = ("random", "residual", "pca")
TASKS = ("detection", "fuzz", "simulate", "intruder_lm")  # of study/judge/all_tasks.py
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # the name of an environment variable, which a key is not


class NoStudy(Keys):
    name: str


class Embedder(Keys):
    folder: Text
    install: Text
    sha256: Text | None


class Study(Keys):
    name: str
    tokens: Count
    seed: Index
    features: Count
    min_fires: Count
    min_documents: Count
    dense_tokens: Index
    labels: Annotated[str, OneOf("auto", "python", "text", "none")]
    label_tokens: Count
    label_documents: Count
    logits: bool
    dense_probes: bool
    embedding: bool
    embedding_latents: Count
    embedder: Embedder
    draws: Count
    delta: Positive
    controls: Annotated[list, SomeOf(*CONTROLS)]
    forward_tokens: Count
    device: Annotated[str, OneOf("auto", "cpu", "cuda")]
    save_minutes: Positive


class WithoutModel(Keys):
    name: str


class Price(Keys):
    input: NotNegative | None  # of a million tokens
    output: NotNegative | None


class Judge(Keys):
    name: str
    model: Text | None
    explain: Annotated[str, OneOf("model", "rules")]
    tasks: Annotated[list, SomeOf(*TASKS)]
    latents: Count
    windows: Count
    controls: Share
    max_requests: Count
    give_up_after: Count


class Endpoint(Judge):
    judge: Text | None
    base_url: Text
    key_variable: str
    send_text: bool
    body: Mapping
    concurrency: Count
    requests_per_minute: Positive | None
    retries: Index
    timeout: Positive
    price: Price


class Local(Judge):
    device: Annotated[str, OneOf("cpu", "cuda")]
    batch: Count
    template: Text


EXPLAINERS = {"none": WithoutModel, "rules": WithoutModel, "openai": Endpoint, "local": Local}


def check_study(study: MutableMapping[str, Any] | None, explainer: MutableMapping[str, Any] | None) -> None:
    """Types and ranges of both groups; None: a config of before they were. Raises UsageError."""
    for key, node in (("study", study), ("explainer", explainer)):
        if node is not None:
            typed(key, node, Mapping)
            require(key, node, ["name"])
    if study is not None:
        typed("study", study, NoStudy if study["name"] == "none" else Study)
    if explainer is not None:
        check_types(explainer)
    if explainer is not None and explainer["name"] != "none" and (study is None or study["name"] == "none"):
        raise UsageError(f"explainer={explainer['name']}: explains the latents of a study; write study=rules too")


def check_types(explainer: MutableMapping[str, Any]) -> None:
    """The keys of a file of conf/explainer; whole numbers such as 1e4 become ints in place."""
    typed("explainer.name", explainer.get("name"), Annotated[str, OneOf(*EXPLAINERS)])
    refuse_keys(explainer)
    typed("explainer", explainer, EXPLAINERS[explainer["name"]])


def refuse_keys(explainer: Any) -> None:
    """Raise UsageError for an API key among the settings, which are written down; it is never shown."""
    if not isinstance(explainer, Mapping):
        return
    value = explainer.get("key_variable")
    if value is not None and not (isinstance(value, str) and VARIABLE.fullmatch(value)):
        raise UsageError("explainer.key_variable: must be the name of an environment variable, such as OPENAI_API_KEY, that "
                         "holds the key; the key itself stands in no setting")
    refuse_secrets("explainer", {key: given for key, given in explainer.items() if key != "key_variable"})

"""README.md of a repository: its header for the hub, the chart, the SAEs, how to load one, and what the numbers are."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from string import Template
from typing import Any, NamedTuple

import pandas as pd
import yaml

from saesweep.config.settings import Settings, has_lm, transcodes, unique_tokens
from saesweep.lm.hooks import hook_point
from saesweep.push.licences import Licences
from saesweep.storage.curves import VARIANT
from saesweep.storage.sae_format import IN_SAELENS

COLUMNS = {  # of the table: title, format, and the definition where the title does not say it
    "arch": ("architecture", "s", ""),
    VARIANT: ("settings", "s", ""),
    "sparsity": ("target L0", "g", "the L0 that it was trained to have"),
    "coefficient": ("coefficient", "g", "the weight of the sparsity loss at the end of the training"),
    "seed": ("seed", "g", ""),
    "d_sae": ("latents", ",.0f", ""),
    "tokens": ("tokens", ",.0f", "that it was trained on, one that was read in several passes counted in each"),
    "l0": ("L0", ".2f", "mean number of latents above 0 per token"),
    "fvu": ("FVU", ".4f", "sum of ‖x - x̂‖² / sum of ‖x - mean x‖² over all tokens; the explained variance is 1 - FVU"),
    "delta_loss": ("delta loss", ".4f", "the language model's cross-entropy with x̂ in place of x, less that without, in nats "
                   "per token"),
    "loss_recovered": ("loss recovered", ".4f", "1 - delta loss / (cross-entropy with zeros in place of x, less that without)"),
    "dead": ("dead", ".3f", "share of latents that did not fire in the last $dead_after training tokens, or in all of them if "
             "fewer"),
    "recovery": ("recovery", ".3f", "mean over the known directions of the largest cosine with a decoder row"),
}
ONLY_WHERE_THEY_DIFFER = ("seed", "d_sae", "tokens")


class Content(NamedTuple):
    repository: str
    df: pd.DataFrame  # of the SAEs: the table of storage/sweep_table.py
    jobs: Sequence[Settings]  # of each, as they are uploaded
    saved_as: Sequence[str]  # of each, its architecture in SAELens' format
    licences: Licences
    rewritten: Sequence[str]  # keys


def card(content: Content) -> str:
    parts = [_header(content), _summary(content), _table(content.df), _loading(content), _numbers(content), _terms(content)]
    return "\n\n".join(parts) + "\n"


def _header(content: Content) -> str:
    sources = [job["model"] for job in content.jobs]
    bases = {source["source"].get("hub") or source.get("hub_name") for source in sources} - {None}
    texts = {job["text"].get("repository") for job in content.jobs if has_lm(job)} - {None}
    fields: dict[str, Any] = {
        "license": content.licences.model, "library_name": "saelens" if _example(content) else "saesweep",
        "base_model": sorted(base for base in bases if not base.startswith(".")), "datasets": sorted(texts),
        "tags": ["saesweep", "sparse-autoencoder", "interpretability", *sorted({job["arch"]["name"] for job in content.jobs})],
    }
    written = yaml.safe_dump({key: value for key, value in fields.items() if value}, sort_keys=False)
    return f"---\n{written}---"


def _summary(content: Content) -> str:
    jobs = content.jobs
    models = _each(jobs, lambda job: job["model"].get("hub_name") or job["model"]["source"].get("hub") or job["model"]["name"])
    rows = {
        "Language model": models,
        "Its weights": _each(jobs, _weights),
        "They read": _each(jobs, _reads),
        "Latents": _each(jobs, lambda job: f"{job['width']:,}"),
        "Trained on": _each(jobs, _trained_on),
        "Text": _each(jobs, lambda job: f"{job['text']['name']}, in blocks of {job['context']} tokens" if has_lm(job) else ""),
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join([
        f"# {content.repository.partition('/')[2]}", "", f"{_what(jobs)}, trained with saesweep {version('saesweep')}.", "",
        "| | |", "|---|---|", *lines, "", "![FVU and delta loss against L0](pareto.png)", "",
        "`pareto.html`, downloaded and opened, shows every SAE with its settings, its training curve and how often its latents "
        "fire; `pareto.csv` has all metrics."])


def _what(jobs: Sequence[Settings]) -> str:
    count, transcoders = len(jobs), sum(map(transcodes, jobs))
    if count == 1:
        return "A transcoder" if transcoders else "A sparse autoencoder (SAE)"
    if transcoders == count:
        return f"{count} transcoders"
    among = f", {transcoders} of them transcoders" if transcoders else ""
    return f"{count} sparse autoencoders (SAEs){among}"


def _each(jobs: Iterable[Settings], said: Callable[[Settings], str]) -> str:
    return "; ".join(dict.fromkeys(map(said, jobs)))


def _weights(job: Settings) -> str:
    source = job["model"]["source"]
    shuffled = ", shuffled" if source.get("shuffle") is not None else ""
    if source.get("hub"):
        return f"{source['hub']}, revision {source['revision']}{shuffled}"
    if source.get("package"):
        return f"dequantised from the GGUF file of the package {source['package']}{shuffled}"
    return "random" if "random" in source else ""


def _reads(job: Settings) -> str:
    if not has_lm(job):
        return "combinations of a known dictionary and noise"
    name = job["site"]["hook_name"].format(layer=job["layer"])
    return f"`{hook_point(job['model'], job['site']['name'], job['layer'])}` (`{name}`)"


def _trained_on(job: Settings) -> str:
    read = unique_tokens(job)
    again = f" ({read:,} of the text, read {job['activations']['passes']} times)" if read < job["tokens"] else ""
    return f"{job['tokens']:,} tokens{again}"


def _table(df: pd.DataFrame) -> str:
    columns = _columns(df)
    head = [title for title, _, _ in columns.values()]
    rows = [[*(_cell(row[key], form) for key, (_, form, _) in columns.items()), f"`{row['path']}`"]
            for row in df.to_dict("records")]
    lines = [[*head, "folder"], ["---"] * (len(head) + 1), *rows]
    return "\n".join(["## The SAEs", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def _columns(df: pd.DataFrame) -> Mapping[str, tuple[str, str, str]]:
    shown = {key: key in df and df[key].notna().to_numpy().any() for key in COLUMNS}
    shown["coefficient"] = bool(df["sparsity"].isna().any())
    shown |= {key: df[key].nunique() > 1 for key in ONLY_WHERE_THEY_DIFFER}
    return {key: column for key, column in COLUMNS.items() if shown[key]}


def _cell(value: Any, form: str) -> str:
    return "" if value is None or value != value else format(value, form)


def _loading(content: Content) -> str:
    path, d_in, d_sae = content.df[["path", "d_in", "d_sae"]].iloc[0]
    through = "x_hat = sae.decode(f)"
    if transcodes(content.jobs[0]):
        through = "y_hat = sae(x)                        # of the tensor that it reconstructs from x"
    ours = f"""## To load one

```python
import saesweep

sae = saesweep.load("{content.repository}/{path}")
f = sae.encode(x)                     # x: raw activations [tokens, {d_in}]; f: [tokens, {d_sae}]
{through}
print(sae.metrics["fvu"], sae.config["arch"]["name"], sae.point)
```"""
    unknown = sorted({name for name in content.saved_as if name not in IN_SAELENS})
    without = f"\n\nSAELens has no {', '.join(unknown)}, and refuses these." if unknown else ""
    if not (example := _example(content)):
        return ours + without
    return f"""{ours}

or, in SAELens:

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{content.repository}", "{example}/sae")
```{without}"""


def _example(content: Content) -> str | None:
    """The first folder that SAELens reads."""
    return next((path for path, name in zip(content.df["path"], content.saved_as, strict=True) if name in IN_SAELENS), None)


def _numbers(content: Content) -> str:
    dead_after = max(job["evaluation"]["dead_after"] for job in content.jobs)
    known = [f"- {title}: {Template(meaning).substitute(dead_after=f'{dead_after:,}')}"
             for title, _, meaning in _columns(content.df).values() if meaning]
    of = ("held-out documents of the same text; BOS, other special tokens and sinks (tokens whose activation is far larger "
          "than the others') are neither measured nor replaced")
    where = of if any(map(has_lm, content.jobs)) else "new draws"
    what = "x is an activation, x̂ its reconstruction"
    what += "; of a transcoder the tensor that it reconstructs" if any(map(transcodes, content.jobs)) else ""
    return "\n".join(["## The numbers", "", f"Measured on {where}. {what}.", "", *known])


def _terms(content: Content) -> str:
    lines = ["## Terms", ""]
    if content.licences.model:
        licence = f"- The SAEs were trained on activations of the language model, whose licence is `{content.licences.model}`"
        lines.append(f"{licence}; its terms may apply to them.")
    if content.licences.text:
        lines.append(f"- The text, which is not part of this repository: {content.licences.text}.")
    if content.rewritten:
        keys = ", ".join(f"`{key}`" for key in content.rewritten)
        lines.append(f"- Of {keys} the settings hold the last part of the path alone.")
    return "\n".join(lines if len(lines) > 2 else [*lines, "- The language model has random weights, or there is none."])

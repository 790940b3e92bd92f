"""What tells the SAEs of a sweep apart: short names of keys, labels, folders, and the styles of curves."""
from pathlib import Path

import pytest

from saesweep.loggers.identity import MemberInfo, labels
from saesweep.loggers.wandb_sae import about
from saesweep.report.style import STYLES, arch_styles
from saesweep.storage import curves, variants

KEYS = ("arch.name", "arch.optimizer.lr", "arch.optimizer.warmup", "tokens", "evaluation.tokens", "text.name", "width")


def job(arch="topk", lr=0.001, width=4096, text="pile", **more):
    optimizer = {"lr": lr, "betas": [0.9, 0.999], **more}
    return {"name": "x", "model": {"name": "lm"}, "site": {"name": "resid"}, "layer": 9, "sparsity": 32, "seed": 0,
            "width": width, "tokens": 1000, "log_tokens": more.get("clip", 1), "text": {"name": text, "file": f"{text}.jsonl"},
            "arch": {"name": arch, "coefficient": None, "optimizer": optimizer}, "trainer": {"precision": "32-true"}}


@pytest.mark.parametrize("key, name", [
    ("arch.optimizer.lr", "lr"), ("arch.optimizer.warmup", "optimizer.warmup"), ("width", "width"), ("tokens", "tokens"),
    ("evaluation.tokens", "evaluation.tokens"), ("text.name", "text"),
])
def test_a_key_is_named_by_its_shortest_end_that_no_other_key_has(key, name):
    assert variants.short(key, KEYS) == name


@pytest.mark.parametrize("value, text", [
    (4096.0, "4096"), (2e-3, "0.002"), (1e-5, "1e-05"), (None, "null"), (True, "true"), ([0.9, 0.999], "0.9_0.999"),
    ("a b/c", "a-b-c-539138d5"), ({"start": 1}, "start-1-506353d4"),
])
def test_a_value_is_one_word_of_a_path(value, text):
    assert variants.shown(value) == text


def test_the_settings_that_differ_within_an_architecture_name_all_saes_of_the_hook_point():
    assert variants.variants([job(), job("gated", lr=0.1)]) == [{}, {}]
    assert variants.variants([job(), job(width=512), job("gated")]) == [{"width": "4096"}, {"width": "512"}, {"width": "4096"}]
    assert variants.variants([job(), job(text="fineweb")]) == [{"text": "pile"}, {"text": "fineweb"}], "not its other keys"
    assert variants.variants([job(), job() | {"sparsity": 16, "seed": 1, "log_tokens": 3}]) == [{}, {}]


def test_a_folders_name_reads_back():
    flat = variants.flat_settings(job())
    name = variants.folder_name("topk", flat, ["arch.optimizer.lr", "width", "arch.warm_start", "text"])
    assert name == "topk,width=4096,text=pile,lr=0.001"
    assert variants.named_by(name) == {"width": "4096", "lr": "0.001", "text": "pile"}
    assert variants.folder_name("topk", flat, variants.named_by(name)) == name
    assert variants.of_folder(Path("topk/32"), "topk") == {}


def test_no_two_saes_have_one_label_and_wandb_knows_what_differs():
    jobs, folders = [job(), job(width=512)], [Path("out/x/lm/resid.9/topk/32"), Path("out/x/lm/resid.9/topk,width=512/32")]
    assert labels(jobs, folders) == ["topk,width=4096/32", "topk,width=512/32"]
    assert labels(jobs[1:], folders[1:]) == ["topk,width=512/32"], "in a group of its own"
    run = about(MemberInfo.of(jobs[1], folders[1], "width=512"))
    assert run["group"] == "x width=512" and run["name"] == "lm/resid.9/topk,width=512/32"
    assert run["config"]["variant"] == "width=512" and "width=512" in run["tags"]
    assert about(MemberInfo.of(jobs[0], folders[0]))["group"] == "x"


def test_eight_curves_have_eight_styles_and_an_architecture_one_marker():
    names = [f"{arch} width={width} lr={lr}" for arch in ("topk", "jumprelu") for width in (512, 4096) for lr in (0.001, 0.002)]
    styles = arch_styles(names)
    assert len({*styles.values()}) == 8
    assert list(styles)[:3:2] == ["jumprelu width=512 lr=0.001", "jumprelu width=4096 lr=0.001"]
    assert {name: style.marker for name, style in styles.items() if style.marker == "^"}.keys() == {*names[:4]}
    assert styles["topk width=512 lr=0.002"].dash == styles["jumprelu width=512 lr=0.002"].dash
    assert arch_styles(["topk", "gated"]) == {"gated": STYLES["gated"], "topk": STYLES["topk"]}


def test_the_name_of_a_curve_is_split_into_architecture_and_settings():
    assert curves.split("topk (a b) width=512 lr=0.1") == ("topk (a b)", {"width": "512", "lr": "0.1"})
    names = ["width=4096", "width=512", "", "lr=1e-05"]
    assert sorted(names, key=curves.natural) == ["", "lr=1e-05", "width=512", "width=4096"]

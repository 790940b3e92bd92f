"""No file is unpickled, nothing is written outside the sweep's folder, and no secret is written to a file."""

import ast
import sys

import pytest
import warm
from small import words, write_text
from standin.cli import ENV, ROOT, train_for_real

SECRETS = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567", "HF_TOKEN": "hf_thisIsNobodysToken0123456789abcd"}
UNPICKLE = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SAFE = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False"}  # with which they read tensors alone


def calls_and_imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            yield f"{name} of tensors" if any(ast.unparse(word) == SAFE.get(name) for word in node.keywords) else name


@pytest.mark.parametrize("file", sorted((ROOT / "src").rglob("*.py")), ids=lambda file: file.stem)
def test_no_module_unpickles(file):
    used = list(calls_and_imports(ast.parse(file.read_text())))
    assert not UNPICKLE & {name.split(".")[0] for name in used}
    assert "torch.load" not in used and "np.load" not in used


@pytest.mark.parametrize("word", ["name=../other", "name=/tmp/other", "model.name=..", "arch.name=a/b", "site.name=.hidden"])
def test_a_name_that_leaves_the_folder_of_the_sweep_is_refused(word, tmp_path, monkeypatch, hydra_restore_singletons):
    monkeypatch.chdir(tmp_path)
    ended = train_for_real("model=tiny", "arch=topk", word)
    assert ended.code == 1 and word.split("=")[0] in ended.error and not list(tmp_path.rglob("eval.json"))
    assert not list(tmp_path.parent.glob("other"))


@pytest.mark.slow
@pytest.mark.process
def test_no_secret_of_the_environment_is_written_or_printed(tmp_path):
    text = write_text(tmp_path)
    settings = [word for word in words(text) if not word.startswith("logger=")]
    command = [sys.executable, str(ROOT / "train.py"), *settings, "arch=topk", "logger.wandb.mode=offline"]
    ended = warm.run(command, tmp_path, ENV | SECRETS, figures=True)
    assert ended.returncode == 0, ended.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    for secret in SECRETS.values():
        assert secret not in ended.stdout + ended.stderr
        assert not [file for file in files if secret.encode() in file.read_bytes()]

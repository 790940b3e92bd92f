"""An SAE that fails does not affect the others of its group: through the command line."""

import json
import subprocess
import sys

import pytest
import warm
from small import command, write_text
from standin.cli import ENV, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.process]

PLACE = "outputs/default/tiny/resid.1"
ENV_WITH_FAULTS = ENV | {"SAESWEEP_PACKAGES": "faults", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture
def faulty(tmp_path):
    """Writes an architecture into the user's conf folder."""

    def write(target, name="faulty"):
        (tmp_path / "mine/arch").mkdir(parents=True, exist_ok=True)
        topk = (ROOT / "conf/arch/topk.yaml").read_text()
        faulty = topk.replace("name: topk", f"name: {name}").replace("saesweep.arch.topk.TopK", target)
        (tmp_path / f"mine/arch/{name}.yaml").write_text(faulty)

    return write


def swept(folder, text, *more):
    words = [*command(text, *more), "--config-dir", "mine"]
    ended = warm.run(words, folder, ENV_WITH_FAULTS)
    return ended.returncode, ended.stdout + ended.stderr


FAULTS = {
    "FailsInStep": "FailsInStep/4: RuntimeError: a bug in its step after 1,280 tokens",
    "TurnsNaN": "W_enc_T, b_enc not finite after 1,920 tokens",
    "FailsInCalibration": "FailsInCalibration/4: RuntimeError: a bug in its margin while its L0 was calibrated",
    "FailsInEvaluation": "RuntimeError: a bug in its encode",
    "FailsWithoutMessage": "AssertionError",
    "FailsInExport": "No space left on device",
}
GROUP = (f"arch=topk,{','.join(FAULTS)},relu", "sparsity=4")  # neither the first nor the last of the group fails


def test_each_sae_fails_alone_and_the_same_command_retries_only_those(text, faulty, tmp_path):
    for fault in FAULTS:
        faulty(f"faults.{fault}", fault)
    code, out = swept(tmp_path, text, *GROUP)
    assert code == 1 and "6 of 8 SAEs failed" in out
    lines = out.split("SAEs failed")[1].splitlines()
    for fault, reason in FAULTS.items():
        folder = tmp_path / PLACE / fault / "4"
        (told,) = [line for line in lines if f"/{fault}/4: " in line]
        assert reason in told and reason in (folder / "failed.txt").read_text()
        assert not (folder / "eval.json").exists()
        saved, trained = list((folder / "checkpoint").glob("*.safetensors")), fault not in ("FailsInStep", "TurnsNaN")
        assert bool(saved) == trained, "an SAE that was trained to its end keeps its checkpoint"
    others = [tmp_path / PLACE / f"{name}/4/eval.json" for name in ("topk", "relu")]
    written = [file.stat().st_mtime_ns for file in others]
    assert (tmp_path / "outputs/default/pareto.csv").read_text().count(",finished,") == 2
    code, out = swept(tmp_path, text, *GROUP)
    assert code == 1 and "6 SAEs to train in 1 group, 2 already finished" in out and "6 of 8 SAEs failed" in out
    assert [file.stat().st_mtime_ns for file in others] == written


def test_a_failed_sae_resumes_from_its_checkpoint_after_its_class_is_fixed(text, faulty, tmp_path):
    """The fixed class has the same name, so that the settings are the same."""
    faulty("faults.fixable.FailsUntilFixed")
    (tmp_path / "broken").touch()
    code, out = swept(tmp_path, text, "arch=topk,faulty", "sparsity=4", "save_tokens=640")
    assert code == 1 and "1 of 2 SAEs failed" in out
    (tmp_path / "broken").unlink()
    code, out = swept(tmp_path, text, "arch=topk,faulty", "sparsity=4", "save_tokens=640")
    assert code == 0 and "faulty/4: resuming at 1,280 tokens" in out
    found, wanted = (json.loads((tmp_path / PLACE / f"{name}/4/eval.json").read_text()) for name in ("faulty", "topk"))
    assert found == wanted
    assert not (tmp_path / PLACE / "faulty/4/failed.txt").exists()


@pytest.mark.parametrize("more", [(), ("trainer=ddp_sim",)], ids=["one process", "two ranks"])
def test_a_group_that_runs_out_of_memory_is_halved(more, text, faulty, tmp_path):
    faulty("faults.RunsOutOfMemory")
    words = ("arch=faulty", "sparsity=2,3,4,5", "tokens=1280", "save_tokens=640", *more)
    code, out = swept(tmp_path, text, *words)
    assert code == 0, out
    assert "out of memory with 4 SAEs: continuing with 2 at a time" in out and "resuming at" in out
    assert len(list((tmp_path / PLACE / "faulty").glob("*/eval.json"))) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_full_disk_in_the_folder_of_one_sae_fails_only_this_sae(text, tmp_path):
    (tmp_path / "mine").mkdir()
    small = tmp_path / PLACE / "topk/4"
    small.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    try:
        code, out = swept(tmp_path, text, "arch=topk,relu", "sparsity=4")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert code == 1 and "1 of 2 SAEs failed" in out
    assert "topk/4: cannot be saved" in out and "tokens" in out.split("SAEs failed")[1]
    assert (tmp_path / PLACE / "relu/4/eval.json").exists()

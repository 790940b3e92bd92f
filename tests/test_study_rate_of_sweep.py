"""A collected sweep, from its folder to the raters' pages and the report on them."""
import json

import pytest
from studied import collected, sweep, trained  # noqa: F401 fixtures

from saesweep.study import rate, report
from saesweep.study.people.origin import set_aside

pytestmark = pytest.mark.slow


def test_a_collected_sweep_is_rated_from_its_folder(sweep, capsys):  # noqa: F811
    collected(sweep, "tokens=4000", "dense_tokens=1000", "min_fires=10", "min_documents=3")
    rate.main([str(sweep), "--raters", "ann,bob", "--static"])
    said = capsys.readouterr().out
    assert said.startswith("Each of 2 raters gets ") and "latents of each of" in said
    page = (sweep / "study/rate/rate_ann.html").read_text()
    items = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["items"]
    assert len(items) > 10 and all(0 < len(item["top"]) <= 10 for item in items)
    for window in items[0]["top"] + items[0]["spread"]:
        assert len(window["text"]) <= 32 and window["tenths"][window["at"]] > 0
    strengths = [[window["tenths"][window["at"]] for window in item["top"]] for item in items]
    assert all(one == sorted(one, reverse=True) for one in strengths) and max(map(max, strengths)) == 10
    report.main([str(sweep)])
    assert capsys.readouterr().out.startswith("0 raters gave 0 answers about 0 latents")
    assert set_aside(sweep / "study") == []
    _made_again(sweep, capsys)


def _made_again(sweep, capsys):  # noqa: F811
    """Collected with other settings, then trained again: the session's figures are not those of the study any more."""
    collected(sweep, "tokens=4000", "dense_tokens=900", "min_fires=10", "min_documents=3", "overwrite=true")
    (line,) = set_aside(sweep / "study")
    assert "collected again since people got latents to rate; ratings.csv and agreement.json of these ratings went into" in line
    with pytest.raises(SystemExit, match="collected again since raters got their latents: put back what was there, or move"):
        rate.main([str(sweep), "--raters", "eve", "--static"])
    report.main([str(sweep)])
    assert "were collected again since people rated: they saw excerpts of another text" in capsys.readouterr().out
    weights = next(sweep.rglob("topk/*/sae/*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(SystemExit, match=r"topk/.* was trained again since people rated"):
        report.main([str(sweep)])

"""A collected sweep, from its folder to the raters' pages and the report on them."""
import json

import pytest
from studied import collected, sweep, trained  # noqa: F401 fixtures

from saesweep.study import rate, report

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
    assert items[0]["top"][0]["tenths"].count(10) == 1, "the strongest example holds the largest activation"
    report.main([str(sweep)])
    assert capsys.readouterr().out.startswith("0 raters gave 0 answers about 0 latents")

"""What the raters of a study say, from their answers so far.

    saesweep report outputs/NAME [ratings_*.json ...]

reads the answers that the server has kept, the files in outputs/NAME/study/rate/answers/, and those that are named; writes
ratings.csv and agreement.json into outputs/NAME/study/, and prints what they show. Where the study has scores, the share of
yes becomes one of them: in scores.csv, summary.csv, study.json, study.html and pareto.csv. The pages of the latents show it
when `saesweep study` writes them again.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from saesweep.errors import exit_on_usage_error
from saesweep.runtime import program
from saesweep.storage import study_tables
from saesweep.study.comparison.catalogue import YES, score
from saesweep.study.people.files import rated, report
from saesweep.study.people.settings import settings


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=program.called("report"), description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep that people have rated")
    parser.add_argument("files", type=Path, nargs="*", help="files that raters have saved")
    parser.add_argument("--leave-out", action="store_true", help="the ratings of SAEs that were trained again since")
    given = parser.parse_args(words)
    with exit_on_usage_error():
        print(*report(given.sweep / "study", given.files, settings(), given.leave_out), *_joined(given.sweep), sep="\n")


def _joined(sweep: Path) -> list[str]:
    """Compare anew, and say how many of the rated latents have scores."""
    from saesweep.study.comparing import again  # torch

    yes = rated(sweep / "study")
    if not yes or (found := again(sweep)) is None:
        return []
    page, joined = sweep / study_tables.FOLDER / "study.html", int(found.scores[YES].notna().to_numpy().sum())
    return [f"{page} has the {score(YES).words} too, of {joined} of {len(yes)} rated latents; the others have no scores."]


if __name__ == "__main__":
    main()

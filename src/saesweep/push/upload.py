"""The Hugging Face hub: whether it can be written to, and the upload. A token comes from `hf auth login` or HF_TOKEN alone."""
from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from saesweep.errors import UsageError
from saesweep.lm.hub import brief, require_reachable

INSTEAD = "--dry-run FOLDER writes everything into a folder, without an account and a network"


def require_name(repository: str) -> None:
    """Raises UsageError for what is not owner/name."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository}: is no name of a repository ({brief(error)}); write owner/name") from error
    if "/" not in repository:
        raise UsageError(f"{repository}: is no name of a repository; write owner/name, such as your-name/{repository}")


def require_account(repository: str) -> None:
    """Raises UsageError where nothing can be uploaded."""
    if get_token() is None:
        raise UsageError(f"{repository}: there is no token of the Hugging Face hub: `hf auth login` keeps one; {INSTEAD}")
    require_reachable(f"{repository}: is a repository of the hub", INSTEAD)


def upload(folder: Path, repository: str, private: bool) -> str:
    """The folder as a commit to the repository, which is made if it is not there; the address of the commit. Files of the same
    name are replaced, others stay. Raises UsageError."""
    api = HfApi()
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)  # None: as its owner's default says
        done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload SAEs trained with saesweep")
    except Exception as error:
        fix = "the token must be one that may write there (`hf auth whoami`), and the same command uploads what is missing"
        raise UsageError(f"{repository}: cannot be uploaded: {brief(error)}; {fix}") from error
    return str(done.commit_url)

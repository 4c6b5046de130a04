"""Hugging Face hub: single files and whole folders, down to the local cache and up; failures are one sentence."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mimicmotion_jax.runtime.errors import InputError, root_cause


class HubRepository:
    """A repository of the hub; files come from the local cache when they are in it and unchanged.

    Attributes:
        name: its id, "owner/name".
    """

    def __init__(self, repo_id: str):
        self.name = repo_id
        self._offline = False

    def get(self, file: str) -> Path | None:
        """Fetch `file`, with a progress bar.

        Returns:
            its path in the cache; None if the repository has no such file, or if the hub cannot be reached and the
            cache has no such file.

        Raises:
            InputError: an id the hub does not allow, gated or missing repository, rejected token, failed download.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            with explain_hub_errors(self.name, f"fetching {file} of {self.name} from the hub"):
                # Once unreachable, always so: else the choice among variants would depend on when the network fails.
                return Path(hf_hub_download(self.name, file, local_files_only=self._offline))
        except LocalEntryNotFoundError:
            self._offline = True
            return None
        except EntryNotFoundError:
            return None

    def missing(self, what: str) -> InputError:
        """Error for a file that is needed and that `get` did not find."""
        if self._offline:
            return InputError(
                f"{self.name} is not a file or folder here, the hub cannot be reached to fetch {what} from it, and the "
                "cache does not have it; connect to the network, or give a file or folder that was fetched elsewhere."
            )
        return InputError(f"{self.name} on the hub lacks {what}; check the name.")


def fetch(repo_id: str, *files: str) -> list[Path]:
    """Fetch files of a repository, all of which it must have; returns their paths in the cache.

    Raises:
        InputError: as `HubRepository.get`; the repository lacks one, or the hub cannot be reached and it is not cached.
    """
    repository = HubRepository(repo_id)
    paths = []
    for file in files:
        path = repository.get(file)
        if path is None:
            raise repository.missing(file)
        paths.append(path)
    return paths


def fetch_folder(repo_id: str, patterns: Sequence[str]) -> Path:
    """Fetch the files of a repository that match `patterns` (`*` matches slashes too); returns their folder.

    Raises:
        InputError: as `HubRepository.get`, or the hub cannot be reached and the cache does not have all of them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with explain_hub_errors(repo_id, f"fetching {repo_id} from the hub"):
            return Path(snapshot_download(repo_id, allow_patterns=list(patterns)))
    except LocalEntryNotFoundError:
        raise InputError(
            f"the hub cannot be reached to fetch {repo_id}, and the cache has only a part of it; connect to the "
            "network, or give a folder that was fetched elsewhere."
        ) from None


def push_folder(
    directory: str | os.PathLike[str],
    repo_id: str,
    *,
    card: str,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload folder",
) -> str:
    """Upload a local folder to a repository of the hub, which is created if there is none.

    Args:
        directory: the folder.
        repo_id: "owner/name".
        card: README.md of the repository, written unless the folder or the repository has one.
        private: visibility of a new repository; None takes the owner's default.
        token: of the hub; None takes the one of `hf auth login` or HF_TOKEN.
        commit_message: first line of the commit.

    Returns:
        the commit's URL.

    Raises:
        InputError: an id the hub does not allow, no permission, or a failed upload.
    """
    from huggingface_hub import HfApi

    with explain_hub_errors(repo_id, f"uploading {directory} to {repo_id}"):
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if not (Path(directory) / "README.md").exists() and not api.file_exists(repo_id, "README.md"):
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=repo_id)
        commit = api.upload_folder(repo_id=repo_id, folder_path=Path(directory), commit_message=commit_message)
        return str(commit.commit_url)


@contextlib.contextmanager
def explain_hub_errors(repo_id: str, task: str) -> Iterator[None]:
    """Turn the failures of calls to the hub into one sentence; a file that is not there passes as it is.

    Args:
        repo_id: the repository in question.
        task: what is being done, as in "fetching config.json of owner/name".

    Raises:
        InputError: an id the hub does not allow, gated or missing repository, rejected token, failed transfer.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    # The base of this error is that of the HTTP library in use, which differs among versions of huggingface_hub;
    # hf_xet, which transfers large files, raises RuntimeError.
    transport_errors = (*HfHubHTTPError.__bases__, OSError, RuntimeError)
    try:
        yield
    except HFValidationError as error:
        raise InputError(
            f"{repo_id} is neither a file or folder here nor an id that the hub allows ({root_cause(error)}); check "
            "the name."
        ) from None
    except GatedRepoError:
        raise InputError(
            f"{repo_id} is gated: accept its licence at https://huggingface.co/{repo_id}, log in with "
            "`hf auth login` (or set HF_TOKEN), then run this again."
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"there is no file or folder {repo_id} here and no such repository on the hub, or it is private: "
            "check the name, and log in with `hf auth login` (or set HF_TOKEN) if it needs a token."
        ) from None
    except EntryNotFoundError:
        raise
    except transport_errors as error:  # pyright: ignore[reportGeneralTypeIssues]
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{task} failed ({reason}); run this again to go on with it, or use a folder or file on this machine."
        ) from None

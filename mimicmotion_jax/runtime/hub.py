"""Files of a Hugging Face repository, fetched one by one as they are asked for; every failure in one clear sentence."""

from pathlib import Path

from mimicmotion_jax.runtime.errors import InputError


class HubRepository:
    """A repository of the hub; files come from the local cache when they are in it and unchanged."""

    def __init__(self, repo_id: str):
        self.name = repo_id
        self._offline = False

    def get(self, file: str) -> Path | None:
        """Fetch `file`, with a progress bar.

        Returns:
            its path in the cache; None if the repository has no such file, or offline if the cache has none.

        Raises:
            InputError: gated or missing repository, rejected token, failed download.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )

        # The base of this error is that of the HTTP library in use, which differs among versions of huggingface_hub;
        # hf_xet, which fetches large files, raises RuntimeError.
        transport_errors = (*HfHubHTTPError.__bases__, OSError, RuntimeError)
        try:
            # Once unreachable, always so: else the choice among the variants would be a matter of luck.
            return Path(hf_hub_download(self.name, file, local_files_only=self._offline))
        except GatedRepoError:
            raise InputError(
                f"{self.name} is gated: accept its licence at https://huggingface.co/{self.name}, log in with "
                "`hf auth login` (or set HF_TOKEN), then run this again."
            ) from None
        except RepositoryNotFoundError:
            raise InputError(
                f"there is no file or folder {self.name} here and no such repository on the hub, or it is private: "
                "check the name, and log in with `hf auth login` (or set HF_TOKEN) if it needs a token."
            ) from None
        except LocalEntryNotFoundError:
            self._offline = True
            return None
        except EntryNotFoundError:
            return None
        except transport_errors as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"fetching {file} of {self.name} from the hub failed ({reason}); run this again to go on with it, or "
                "give a folder or file on this machine."
            ) from None

    def missing(self, what: str) -> InputError:
        """The error for a file that nothing here can replace."""
        if self._offline:
            return InputError(
                f"{self.name} is no file or folder here, and the hub cannot be reached to fetch {what} from it, nor is "
                "it in the cache; connect to the network or give what you fetched elsewhere."
            )
        return InputError(f"{self.name} on the hub lacks {what}; check the name.")


def fetch(repo_id: str, *files: str) -> list[Path]:
    """Files of a repository, all of which it must have; paths in the cache.

    Raises:
        InputError: as `HubRepository.get`; the repository lacks one, or cannot be reached and the cache has it not.
    """
    repository = HubRepository(repo_id)
    paths = []
    for file in files:
        path = repository.get(file)
        if path is None:
            raise repository.missing(file)
        paths.append(path)
    return paths

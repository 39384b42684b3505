"""Getting files of the Hugging Face hub: from its cache where they are, else by download, else with a way out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from guardtrain.errors import EncoderError

# Seconds for the hub's first answer. hf_hub_download on its own retries for half a minute where there is no network.
_ANSWER_SECONDS = 5.0


def cache_folder() -> Path:
    """The hub's cache on this machine, as set by HF_HUB_CACHE or HF_HOME."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)


def hub_file(repo: str, filenames: Sequence[str], what: str, revision: str | None = None) -> Path:
    """The first of `filenames` that the repository has, as a local path.

    What is cached is used without asking the network, so that a run offline equals one online.

    Args:
        repo: `org/name`.
        filenames: candidates in order of preference.
        what: the model and tag, for messages.
        revision: branch, tag or commit; default: main.

    Raises:
        EncoderError: not cached and not to be had, with the cache looked in and the ways out.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cache = cache_folder()
    try:
        for filename in filenames:
            found = try_to_load_from_cache(repo, filename, cache_dir=cache, revision=revision)
            if isinstance(found, str):
                return Path(found)
        if _offline():
            raise unavailable(what, repo, filenames, "the hub is switched off (HF_HUB_OFFLINE)")
        for filename in filenames:
            url = hf_hub_url(repo, filename, revision=revision)
            try:
                get_hf_file_metadata(url, timeout=_ANSWER_SECONDS)
                return Path(hf_hub_download(repo, filename, revision=revision, cache_dir=cache))
            except LocalEntryNotFoundError as error:
                raise unavailable(what, repo, filenames, "the hub cannot be reached") from error
            except EntryNotFoundError:
                continue
    except GatedRepoError as error:
        raise EncoderError(
            f"The weights of {what} are gated: accept the licence at https://huggingface.co/{repo}, then log in "
            "with `hf auth login` or set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise EncoderError(f"The hub repository {repo} ({what}) has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f"The hub has no repository {repo} ({what}), or it is private and HF_TOKEN does not open it."
        ) from error
    except HFValidationError as error:
        raise EncoderError(f"'{repo}' ({what}) is not a hub repository's name: {error}") from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors, which changed over versions
        if isinstance(error, EncoderError):
            raise
        raise unavailable(what, repo, filenames, f"the hub cannot be reached: {_first_line(error)}") from error
    raise EncoderError(f"The hub repository {repo} ({what}) has none of {', '.join(filenames)}.")


def unavailable(what: str, repo: str, filenames: Sequence[str], reason: str) -> EncoderError:
    """The error for weights that are neither cached nor to be had, with the ways out."""
    return EncoderError(
        f"The weights of {what} are not on this machine, and {reason}.\n"
        f"  looked in: {cache_folder()}\n"
        f"  ways out:  on a connected machine run `hf download {repo} {filenames[0]}` and copy its hub cache here;\n"
        "             or set encoder.checkpoint= to a local weights file;\n"
        "             or use encoder=demo, which is part of guardtrain."
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

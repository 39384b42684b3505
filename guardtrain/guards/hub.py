"""Guards on the Hugging Face hub: fetched into its cache, pushed as a repository."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guardtrain.errors import GuardError
from guardtrain.guards.directory import read_config, write_config

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def located(path_or_hub_id: str | Path, revision: str | None = None) -> tuple[Path, Path]:
    """The directory of a guard, and where links in it may lead (the hub's cache keeps the files beside it).

    Raises:
        GuardError: neither a directory nor a repository that can be had, with the ways out.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.exists():
        if not path.is_dir():
            raise GuardError(f"{path} is a file; a guard is a directory. Give the directory it lies in.")
        if revision is not None:
            raise GuardError(f"{path} is a directory on this machine, and has no revision '{revision}'.")
        return path, _cache_root(path)
    name = str(path_or_hub_id)
    if isinstance(path_or_hub_id, Path) or not _REPOSITORY.fullmatch(name):
        raise GuardError(
            f"There is no directory {path}, and '{name}' is no repository of the hub (org/name). Give the directory "
            "that `guardtrain export` wrote, or org/name."
        )
    folder = _fetched(name, revision)
    return folder, _cache_root(folder)


def push(
    guard: str | Path,
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    message: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Push a guard's directory as a repository of the hub; what the guard refuses to load is not pushed.

    Args:
        guard: the directory.
        repo: `org/name`; made if it is not there.
        private: whether a repository that is made is private.
        revision: branch; None for main.
        message: of the commit.
        say: tells the user what is pushed.

    Returns:
        The commit's address.

    Raises:
        GuardError: no guard, not a repository's name, or the hub cannot be reached or refuses.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise GuardError(f"'{repo}' is no repository of the hub; write org/name.")
    folder, root = located(Path(guard))
    config = read_config(folder, root)
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        staged = stage(folder, config, Path(temporary) / "guard")
        files = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
        say(f"pushing {len(files)} files to {repo}: {', '.join(files)}")
        api = HfApi()
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=staged,
                revision=revision,
                commit_message=message or f"Guard {config.get('name', '')}".strip(),
            )
        except Exception as error:  # the hub's own and its HTTP library's, which changed over versions
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GuardError(
                f"The guard could not be pushed to {repo}: {reason}\n  You need a connection (HF_HUB_OFFLINE must "
                "not be set), a token that may write (`hf auth login`, or HF_TOKEN), and the right to make or change "
                f"{repo}. The guard in {folder} is as it was."
            ) from error
    return str(getattr(commit, "commit_url", commit))


def stage(folder: Path, config: dict[str, Any], out: Path) -> Path:
    """A copy of a guard for others: only files that its config names, and of the encoder's weights no path of here."""
    out.mkdir(parents=True)
    for name in config["files"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
    content = {key: value for key, value in config.items() if key not in ("format", "files", "sha256")}
    location = content["encoder"].get("location")
    if location and "://" not in location:
        content["encoder"] = {**content["encoder"], "location": Path(location).name}
    write_config(out, content)
    return out


def _cache_root(folder: Path) -> Path:
    """`folder`, or the cached repository it is a snapshot of: cache/models--org--name/snapshots/COMMIT."""
    repository = folder.absolute().parent.parent
    cached = folder.absolute().parent.name == "snapshots" and (repository / "blobs").is_dir()
    return repository if cached else folder


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from guardtrain.encoders.hub import cache_folder

    where = f"the hub's cache ({cache_folder()})"
    try:
        return Path(snapshot_download(name, revision=revision, cache_dir=cache_folder()))
    except GatedRepoError as error:
        raise GuardError(
            f"The guard {name} is gated: accept its terms at https://huggingface.co/{name}, then `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise GuardError(f"The hub's repository {name} has no revision '{revision}'.") from error
    except RepositoryNotFoundError as error:
        raise GuardError(
            f"There is no directory {name} here, and the hub has no repository {name}, or it is private: then "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except LocalEntryNotFoundError as error:
        raise GuardError(
            f"There is no directory {name} here, it is not in {where}, and the hub cannot be reached (or is switched "
            f"off, HF_HUB_OFFLINE). On a connected machine run `hf download {name}` and copy its cache or the folder "
            "here; or give the folder's path."
        ) from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors, which changed over versions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GuardError(f"The guard {name} is not in {where} and cannot be fetched: {reason}") from error

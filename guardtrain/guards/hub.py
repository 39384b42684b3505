"""Guards on the Hugging Face hub: fetched into its cache, pushed as a repository."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guardtrain.encoders.spec import EncoderSpec
from guardtrain.errors import GuardError
from guardtrain.guards.directory import GUARD_ONNX, PROGRAM, read_config, write_config
from guardtrain.guards.encoder_weights import copy_weights, kept_weights, only_here
from guardtrain.guards.head_file import is_known

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
    weights: bool | None = None,
    checkpoint: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Push a guard's directory as a repository of the hub; what the guard refuses to load is not pushed.

    Neither is a guard that nobody else could judge images with: its encoder must be a published one, or lie in it.

    Args:
        guard: the directory.
        repo: `org/name`; made if it is not there.
        private: whether a repository that is made is private.
        revision: branch; None for main.
        message: of the commit.
        weights: whether the encoder's weights are pushed with it where they are a file of the user's; None refuses
            such a guard, unless it holds a program from pixels to probability.
        checkpoint: where these weights lie; None for where they lay when the guard was made.
        say: tells the user what is pushed.

    Returns:
        The commit's address.

    Raises:
        GuardError: no guard, one that others could not use, not a repository's name, or the hub cannot be reached or
            refuses.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise GuardError(f"'{repo}' is no repository of the hub; write org/name.")
    folder, root = located(Path(guard))
    config = read_config(folder, root)
    spec = EncoderSpec.from_dict({key: value for key, value in config["encoder"].items() if key != "fingerprint"})
    local = only_here(spec) and kept_weights(folder, config) is None
    if local and weights is None and not {GUARD_ONNX, PROGRAM} & set(config["files"]):
        again = {"guard": str(guard), "repo": repo, "revision": revision, "message": message}
        raise GuardError(_only_here(folder, spec, {**again, "private": None if private else "false"}))
    for note in _of_others(config, local and not weights):
        say(f"note: {note}")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        own = (spec, checkpoint) if local and weights else None
        staged = stage(folder, config, Path(temporary) / "guard", own)
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


def _only_here(folder: Path, spec: EncoderSpec, given: Mapping[str, str | None]) -> str:
    """Why a guard is not pushed whose encoder is a file of this machine, with commands that push it."""

    from guardtrain.grammar import setting
    from guardtrain.heads.artifact import DESCRIPTION

    def command(weights: str) -> str:
        said = [setting(name, value) for name, value in {**given, "weights": weights}.items() if value is not None]
        return shlex.join(["guardtrain", "push", *said])

    lines = [
        f"The guard in {folder} is not pushed: its encoder ({spec.label}) is a file of this machine ({spec.location}), "
        "and without it nobody else could judge an image. Push the weights as well:",
        f"  {command('true')}",
    ]
    if (folder.parent / DESCRIPTION).is_file():
        export = ["guardtrain", "export", setting("run", str(folder.parent)), setting("out", str(folder)), "whole=true"]
        lines += ["or write a program from pixels to probability into it first:", f"  {shlex.join(export)}"]
    return "\n".join([*lines, "or, if the others have this very file, go without it:", f"  {command('false')}"])


def _of_others(config: Mapping[str, Any], without_weights: bool) -> list[str]:
    """List what others need to use a guard, besides what is pushed."""
    needed = []
    if without_weights:
        programs = [name for name in (GUARD_ONNX, PROGRAM) if name in config["files"]]
        what = f"pixels are judged by {' and '.join(programs)}; for Guard.predict" if programs else "to judge images"
        sha = config["encoder"]["weights_sha256"]
        needed.append(f"{what} others need the encoder's weights with the sha256 {sha}: Guard.load(…, checkpoint=FILE)")
    name = str(config["head"].get("_target_"))
    if not is_known(name):
        needed.append(
            f"its head {name} is no part of guardtrain: others need that module, and Guard.load(…, "
            f"trusted_heads=['{name}'])"
        )
    return needed


def stage(
    folder: Path, config: dict[str, Any], out: Path, encoder: tuple[EncoderSpec, str | None] | None = None
) -> Path:
    """A copy of a guard for others: only files that its config names, and of the encoder's weights no path of here.

    Args:
        folder: the guard's directory.
        config: its content.
        out: the copy; it is made.
        encoder: the encoder whose weights are copied, too, and where they lie; see `copy_weights`.
    """
    out.mkdir(parents=True)
    if encoder is not None:
        copy_weights(encoder[0], out, encoder[1])
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

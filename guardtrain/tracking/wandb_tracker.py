"""Weights & Biases: offline where there is no key or no network, without a prompt and without waiting."""

from __future__ import annotations

import netrc
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from guardtrain.tracking.artefacts import Artefact
from guardtrain.tracking.network import reachable
from guardtrain.tracking.redaction import redacted_arguments
from guardtrain.tracking.settings import LoggerSettings
from guardtrain.tracking.tracker import Outcome, ServiceTracker, TrackedWork

INIT_SECONDS, FINISH_SECONDS = 10.0, 30.0  # that a server may take at the start and at the end
COPIED_BYTES = 64 << 20  # larger files are not copied to be sent later: they must be there then
_MOST_FILES = 10_000_000  # of a store; wandb would stop at ten thousand
_LONGEST = 128  # characters of a name or a group
_ALIASES = {"dryrun": "offline", "run": "online"}  # what WANDB_MODE may still say


class WandbTracker(ServiceTracker):
    """One W&B run, with its tables, figures, config and artefacts."""

    title = "W&B"

    def __init__(self, settings: LoggerSettings, work: TrackedWork, say: Callable[[str], None]) -> None:
        super().__init__(settings, work, say)
        mode, why = wandb_mode(settings.mode)
        number = self.kept_id() or secrets.token_hex(4)
        try:
            self.run: Any = self._start(mode, number)
        except Exception as error:  # a key that is wrong, a server that is slow: wandb's errors have no common class
            if mode != "online":
                raise
            mode, why = "offline", f"{type(error).__name__} from {_server()}"
            wandb.teardown(exit_code=1)  # its service still holds the run that did not come about
            self.run = self._start(mode, number)
        if why:
            say(f"W&B       offline: {why}")
        self.mode = mode
        if mode != "disabled":
            self.keep_id(number)
        if work.losses:
            from lightning.pytorch.loggers import WandbLogger

            self.run.define_metric("trainer/global_step")
            self.run.define_metric("train*", step_metric="trainer/global_step")
            self.loggers.append(WandbLogger(experiment=self.run))

    def _start(self, mode: str, number: str) -> Any:
        work, settings = self.work, self.settings
        work.folder.mkdir(parents=True, exist_ok=True)
        wanted = {
            "silent": True,  # it says nothing itself; what is to be said is said here
            "console": "off",  # what is printed is not captured: it is in the log, and progress bars do not survive it
            "disable_code": True,
            "base_url": _server(),
            "init_timeout": INIT_SECONDS,
            "finish_timeout": FINISH_SECONDS,
        }
        known = getattr(wandb.Settings, "model_fields", wanted)
        with _arguments_without_secrets():
            return wandb.init(
                entity=settings.entity,
                project=settings.project,
                group=work.group[-_LONGEST:] if work.group else None,
                name=work.name[-_LONGEST:],
                job_type=work.kind,
                id=number,
                resume="allow" if mode == "online" else None,
                config=dict(work.config),
                dir=str(work.folder.absolute()),  # W&B's service may run in another folder, of an earlier run
                mode=mode,  # type: ignore[arg-type]
                settings=wandb.Settings(**{name: value for name, value in wanted.items() if name in known}),
            )

    def _log(self, outcome: Outcome) -> None:
        for artefact in outcome.uses:
            self._use(_artifact(artefact))
        self.run.config.update({"lineage": outcome.lineage()}, allow_val_change=True)
        shown: dict[str, Any] = {name: wandb.Table(dataframe=frame) for name, frame in outcome.tables.items()}
        for path in outcome.figures:
            shown[path.stem] = wandb.Image(str(path))
        if shown:
            self.run.log(shown)
        self.run.summary.update(dict(outcome.summary))
        for artefact in outcome.makes:
            self.run.log_artifact(_artifact(artefact))

    def _use(self, artifact: wandb.Artifact) -> None:
        """An artifact that the run reads. wandb refuses `use_artifact` offline, but not what that does online."""
        if self.mode == "online":
            self.run.use_artifact(artifact)
            return
        log = getattr(self.run, "_log_artifact", None)
        if log is None:
            self.run.log_artifact(artifact)  # config.lineage says that it was read
        else:
            log(artifact, is_user_created=True, use_after_commit=True)

    def close(self, *, failed: bool = False) -> None:
        folder = Path(getattr(self.run.settings, "sync_dir", "") or ".")
        url = self.run.url if self.mode == "online" else None
        try:
            self.run.finish(exit_code=1 if failed else 0)
        except Exception as error:
            self.say(f"W&B       not finished ({type(error).__name__}): wandb sync {_shown(folder)}")
            return
        if self.mode == "offline":
            self.say(f"W&B       offline; send it with: wandb sync {_shown(folder)}")
        elif url:
            self.say(f"W&B       {url}")


def wandb_mode(wanted: str) -> tuple[str, str]:
    """The mode that works here, and why it is not the wanted one; an empty reason where it is.

    Args:
        wanted: `auto`, `online`, `offline` or `disabled`.
    """
    given = os.environ.get("WANDB_MODE", "").lower()
    given = _ALIASES.get(given, given)
    mode = wanted
    if wanted == "auto":
        mode = given if given in ("online", "offline", "disabled") else "online" if has_key() else "offline"
    if mode != "online":
        return mode, ""
    if not has_key():
        return "offline", "there is no key (wandb login)"
    return ("online", "") if reachable(_server()) else ("offline", f"{_server()} cannot be reached")


def _server() -> str:
    return os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)


def has_key() -> bool:
    """Whether W&B has a key, or a token of an identity provider; its own look-up may ask for one."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    hosts = {urlsplit(_server()).netloc, "api.wandb.ai"}
    given = os.environ.get("NETRC")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        try:
            kept = netrc.netrc(Path(path).expanduser()).hosts
        except (OSError, netrc.NetrcParseError):
            continue
        if hosts & kept.keys():
            return True
    return False


def _artifact(artefact: Artefact) -> wandb.Artifact:
    made = wandb.Artifact(artefact.name, type=artefact.kind, metadata=dict(artefact.about))
    for name, path in artefact.files.items():
        large = path.stat().st_size > COPIED_BYTES
        made.add_file(str(path), name=name, policy="immutable" if large else "mutable", skip_cache=True)
    for name, path in artefact.references.items():
        # the checksums among the files say what lies there; wandb's own would be a second read of all of it
        made.add_reference(path.absolute().as_uri(), name=name, checksum=False, max_objects=_MOST_FILES)
    return made


@contextmanager
def _arguments_without_secrets() -> Iterator[None]:
    """W&B keeps the command line of the process that starts a run, as `sys.argv` has it."""
    kept = sys.argv
    sys.argv = redacted_arguments(kept)
    try:
        yield
    finally:
        sys.argv = kept


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

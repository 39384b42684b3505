"""A SLURM of one node on this machine: munge, the controller and the node's daemon, from Debian's packages."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from tests.engines.daemons import daemon, free_port, wait_for

NEEDED = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
CONFIG = """\
ClusterName=guardtrain
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ReturnToService=2
KillWait=5
MinJobAge=300
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=262144 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs; its clients find it through `SLURM_CONF`.

    Args:
        config: the file.
        cpus: that jobs can have.
    """

    config: Path
    cpus: int

    def ask(self, *command: str) -> str:
        """What one of SLURM's programs prints."""
        env = {**os.environ, "SLURM_CONF": str(self.config)}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()

    def jobs(self) -> dict[str, str]:
        """The state of each job, by its id, of those in the queue."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)


def missing(programs: Sequence[str]) -> list[str]:
    """The programs that are not installed; a user's path need not hold the daemons'."""
    return [name for name in programs if _find(name) is None]


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@contextmanager
def slurm_on_this_machine(folder: Path, cpus: int = 64) -> Iterator[Slurm]:
    """Start SLURM in `folder`, with no accounts of jobs kept; its jobs end with the block.

    The test is skipped where a program is not installed, with the line that installs them.

    Args:
        folder: for its configuration, its state and its logs; a short path, for a socket's may have 107 characters.
        cpus: that it believes to have, with 256 GB, for jobs to be what they are on a cluster; let few run at once.
    """
    if gone := missing([*NEEDED]):
        packages = " ".join(dict.fromkeys(NEEDED[name] for name in gone))
        pytest.skip(f"no {', '.join(gone)} here: apt-get install --no-install-recommends {packages}")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    config = folder / "slurm.conf"
    ports = {"controller": free_port(), "node": free_port()}
    config.write_text(CONFIG.format(host=socket.gethostname(), user=getuser(), folder=folder, cpus=cpus, **ports))
    slurm = Slurm(config, cpus)
    env = {"SLURM_CONF": str(config)}
    socket_file = folder / "munge.socket"
    munged = [str(_find("munged")), "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}"]
    munged += [f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]

    def answers() -> bool:
        with suppress(subprocess.CalledProcessError):
            return "UP" in slurm.ask("scontrol", "ping")
        return False

    def idle() -> bool:
        return slurm.ask("sinfo", "--noheader", "--format=%T") == "idle"

    with ExitStack() as stack:
        stack.enter_context(daemon(munged, folder / "munged.out", ready=socket_file.exists))
        controller = [str(_find("slurmctld")), "-D", "-f", str(config)]
        stack.enter_context(daemon(controller, folder / "slurmctld.log", ready=answers, env=env))
        node = [str(_find("slurmd")), "-D", "-f", str(config)]
        stack.enter_context(daemon(node, folder / "slurmd.log", ready=idle, env=env))
        try:
            yield slurm
        finally:
            with suppress(subprocess.CalledProcessError, RuntimeError):
                slurm.ask("scancel", "--signal=KILL", f"--user={getuser()}")
                slurm.ask("scancel", f"--user={getuser()}")
                wait_for(lambda: not slurm.jobs(), "SLURM's jobs to end", seconds=30)

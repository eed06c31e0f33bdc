"""A Slurm of one node on this machine, all in one folder: started for a command, taken down after it.

    python tests/system/one_node_slurm.py [--cores N] COMMAND...

Needs Debian's packages ``slurm-wlm`` and ``munge``, and root. Nothing of the machine's own Slurm is touched:
keys, sockets, configuration, state and logs lie in a temporary folder, the daemons listen on ports that were
free, and the command finds this cluster by ``SLURM_CONF``. Jobs that still run are ended with it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

#: Programs that it takes.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "scancel", "squeue")
#: Seconds in which all must be up.
PATIENCE = 60.0

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
KillWait=2
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO
"""


class UnavailableError(Exception):
    """This machine cannot run it; the text says why."""


def find(program: str) -> str | None:
    """Return where a program lies; daemons are not on everybody's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def memory_mb() -> int:
    """Return the memory of this machine that jobs may ask for."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4 >> 20


class Daemons:
    """Processes in the foreground of this one, ended in the order opposite to that of their start."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, program: str, *arguments: str) -> None:
        """Start one; what it prints is kept."""
        with (self._folder / f"{program}.out").open("wb") as output:
            process = subprocess.Popen(
                [find(program) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # an interrupt at the terminal is ours to handle
            )
        self._running.append((program, process))

    def check(self) -> None:
        """Raise if one has ended."""
        for program, process in self._running:
            if process.poll() is not None:
                said = (self._folder / f"{program}.out").read_text(errors="replace").strip()
                raise UnavailableError(
                    f"{program} ended with {process.returncode}: {said[-300:] or 'no word'}"
                )

    def stop(self) -> None:
        """End all."""
        for _, process in reversed(self._running):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(environment: dict[str, str], *command: str) -> str:
    """Return what one of Slurm's commands prints; nothing where it fails."""
    try:
        done = subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def wait_until(found: bool, deadline: float, what: str) -> bool:
    """Return whether to go on waiting."""
    if found:
        return False
    if time.monotonic() > deadline:
        raise UnavailableError(f"{what} within {PATIENCE:g} s")
    time.sleep(0.2)
    return True


@contextlib.contextmanager
def one_node_slurm(cores: int = 0) -> Iterator[dict[str, str]]:
    """Run a Slurm of one node.

    Parameters
    ----------
    cores
        Processors of the node; 0 for those of this machine.

    Yields
    ------
    dict
        The environment in which ``sbatch`` and the others find it.

    Raises
    ------
    UnavailableError
        A program is missing, this is not root, or a daemon does not start.
    """
    missing = [program for program in PROGRAMS if find(program) is None]
    if missing:
        raise UnavailableError(f"{', '.join(missing)} not installed (Debian: slurm-wlm and munge)")
    if os.geteuid() != 0:
        raise UnavailableError("slurmd starts jobs as their users, so it needs root")
    host = socket.gethostname().partition(".")[0]
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # munged checks who may write where its socket lies
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        controller, daemon = free_ports(2)
        settings = {"controller": controller, "daemon": daemon, "cores": cores or os.cpu_count()}
        file = folder / "slurm.conf"
        file.write_text(CONFIGURATION.format(host=host, folder=folder, memory=memory_mb(), **settings))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        environment = os.environ | {"SLURM_CONF": str(file), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        daemons = Daemons(folder, environment)
        try:
            deadline = time.monotonic() + PATIENCE
            daemons.start(
                "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
                f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
                f"--seed-file={folder}/munged.seed",
            )  # fmt: skip
            while wait_until((folder / "munge.socket").exists(), deadline, "munged makes no socket"):
                daemons.check()
            daemons.start("slurmctld", "-D", "-f", str(file))
            daemons.start("slurmd", "-D", "-f", str(file), "-N", host)
            state = ""
            while wait_until(state == "idle", deadline, f"the node is '{state}', not idle"):
                daemons.check()
                state = ask(environment, "sinfo", "-h", "-o", "%T").strip()
            yield environment
        finally:
            with contextlib.suppress(UnavailableError):
                end_jobs(environment)
            daemons.stop()


def end_jobs(environment: dict[str, str]) -> None:
    """End what still runs, and wait for it."""
    deadline = time.monotonic() + PATIENCE
    ask(environment, "scancel", "--user=root")
    while wait_until(not ask(environment, "squeue", "-h").strip(), deadline, "jobs do not end"):
        pass


def main() -> int:
    """Run a command in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cores", type=int, default=0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with one_node_slurm(given.cores) as environment:
            return subprocess.run(given.command or ["sinfo"], env=environment, check=False).returncode
    except UnavailableError as error:
        print(f"no Slurm here: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

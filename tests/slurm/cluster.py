"""A Slurm of its own on this machine: controller, two nodes, and two GPUs a node that are none.

Debian's packages slurmctld, slurmd, munge and slurm-client, without systemd and without touching
what /etc holds: everything is in one folder. Root alone may start it (device files, several users).

    with Cluster(folder) as env:
        subprocess.run(['sinfo'], env=env)
"""
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from helpers.commands import free_ports

NEEDS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'scontrol')
NODES = ('n1', 'n2')
CONF = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
KillWait=20
ReturnToService=2
GresTypes=gpu
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1} CPUs=8 RealMemory=4000 Gres=gpu:2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2} CPUs=8 RealMemory=4000 Gres=gpu:2
PartitionName=tiny Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why a cluster cannot be started here; None if it can."""
    absent = [name for name in NEEDS if shutil.which(name, path=_path()) is None]
    if absent:
        return f'Slurm is not installed ({absent[0]} is missing): `make test-slurm` installs it'
    return None if os.geteuid() == 0 else 'starting Slurm needs root'


class Cluster:
    """Starts it on entry and gives the environment of its commands; ends all of it on exit."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = {**os.environ, 'PATH': _path(), 'SLURM_CONF': str(folder / 'slurm.conf')}
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> dict[str, str]:
        self._write()
        try:
            self._start('munged', '--foreground', '--force', *(
                f'--{name}={self.folder}/munge.{name}'
                for name in ('socket', 'key-file', 'pid-file', 'log-file', 'seed-file')))
            self._start('slurmctld', '-D', '-c', '-f', self.env['SLURM_CONF'])
            for node in NODES:
                self._start('slurmd', '-D', '-N', node, '-f', self.env['SLURM_CONF'])
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self.env

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self.daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _write(self) -> None:
        folder = self.folder
        folder.mkdir(parents=True, mode=0o755)
        (folder / 'state').mkdir()
        (folder / 'munge.key-file').write_bytes(os.urandom(128))
        (folder / 'munge.key-file').chmod(0o400)
        ports = dict(zip(('controller', *NODES), free_ports(3)))
        (folder / 'slurm.conf').write_text(CONF.format(folder=folder, **ports))
        for number in (0, 1):  # Slurm takes device files alone for GPUs; these are /dev/null
            os.mknod(folder / f'gpu{number}', 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (folder / 'gres.conf').write_text(f'Name=gpu File={folder}/gpu[0-1]\n')

    def _start(self, *command: str) -> None:
        with (self.folder / 'daemons.txt').open('a') as log:
            self.daemons.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=log))
        time.sleep(1)

    def _wait_until_idle(self) -> None:
        end = time.monotonic() + 60
        while True:
            answer = subprocess.run(['sinfo', '-hN', '-o', '%N %T'], env=self.env, text=True,
                                    capture_output=True)
            if answer.stdout.split() == ['n1', 'idle', 'n2', 'idle']:
                return
            if time.monotonic() > end:
                logs = ''.join(f'\n{path.name}:\n{path.read_text()[-1500:]}' for path in
                               [*self.folder.glob('*.log'), self.folder / 'daemons.txt'])
                raise TimeoutError(f'nodes: {answer.stdout} {answer.stderr}{logs}')
            time.sleep(0.5)


def _path() -> str:
    return f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'

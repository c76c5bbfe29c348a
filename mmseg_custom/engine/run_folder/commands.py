"""The commands that a page of a run names: those of its start, and what to do with its results.

They are for a shell in the folder that the run was started in, which each block of them enters.
"""
import os
import os.path as osp
import shlex
import sys
from collections.abc import Mapping, Sequence

from ...missing import ROOT
from ..run import Run

_ONCE = ('--resume-from', '--overwrite', '--auto-resume')  # of the start, not of the next one
_FLAGS = ('--overwrite', '--auto-resume')


def start_command(run: Run, argv: Sequence[str] | None = None,
                  environment: Mapping[str, str] | None = None) -> str:
    """Returns the command that starts a run as it was started.

    Args:
        run: The run.
        argv: Words of this process's command line; default: its own.
        environment: Variables of its launcher; default: its own.
    """
    words = list(sys.argv if argv is None else argv)
    env = os.environ if environment is None else environment
    tool, arguments = osp.basename(words[0]), words[1:]
    if run.options.launcher == 'none':
        return shlex.join(['python', tool_path(tool), *arguments])
    arguments = _without(arguments, ('--launcher', '--local_rank', '--local-rank'))
    config = next((word for word in arguments if word == run.cfg.filename or osp.exists(word)
                   and osp.abspath(word) == osp.abspath(run.cfg.filename or '')), None)
    script = dict(zip(('train.py', 'test.py'), ('dist_train.sh', 'dist_test.sh'))).get(tool)
    if script is None or config is None or run.options.launcher == 'mpi':
        launcher = ['mpirun', '-n', str(run.batch.ranks), 'python'] if (
            run.options.launcher == 'mpi') else [
                'python', tool_path('torchrun.py'), f'--nproc_per_node={run.batch.ranks}']
        return shlex.join([*launcher, tool_path(tool), *arguments,
                           '--launcher', run.options.launcher])
    arguments.remove(config)
    first = [config] + ([arguments.pop(0)] if tool == 'test.py' else [])
    if run.options.launcher == 'slurm':
        return f'GPUS={run.batch.ranks} ' + shlex.join([
            'sh', _beside(script.replace('dist', 'slurm')),
            env.get('SLURM_JOB_PARTITION', 'PARTITION'), env.get('SLURM_JOB_NAME', 'NAME'),
            *first, *arguments])
    nodes = int(env.get('GROUP_WORLD_SIZE') or 1)
    several = '' if nodes == 1 else (
        f'NNODES={nodes} NODE_RANK={env.get("GROUP_RANK", 0)} '
        f'MASTER_ADDR={shlex.quote(env.get("MASTER_ADDR", "ADDRESS"))} ')
    return several + shlex.join(['sh', _beside(script), *first,
                                 env.get('LOCAL_WORLD_SIZE') or str(run.batch.ranks),
                                 *[word for word in arguments if word != '--deterministic']])


def resume_command(run: Run, argv: Sequence[str] | None = None,
                   environment: Mapping[str, str] | None = None) -> str:
    """Returns the command that resumes a run: see :func:`start_command`."""
    words = list(sys.argv if argv is None else argv)
    words = [words[0], *_without(words[1:], _ONCE), '--auto-resume']
    return start_command(run, words, environment)


def test_commands(config: str, checkpoint: str, work_dir: str) -> list[str]:
    """Returns the commands that test a checkpoint, and make a page of the results."""
    return [shlex.join(['python', tool_path('test.py'), config, checkpoint, '--eval', 'mIoU',
                        '--work-dir', work_dir]), report_command(work_dir)]


def report_command(work_dir: str) -> str:
    """Returns the command that makes a page of the newest test results in a folder."""
    return shlex.join(['python', tool_path('report.py'), work_dir])


def export_command(checkpoint: str, work_dir: str) -> str:
    """Returns the command that writes the weights alone, those of a frozen backbone too."""
    return shlex.join(['python', tool_path('merge_checkpoint.py'), checkpoint,
                       osp.join(work_dir, 'weights.safetensors')])


def label_command(image: str, config: str, checkpoint: str, work_dir: str) -> str:
    """Returns the command that labels an image."""
    return shlex.join(['python', tool_path('image_demo.py'), image, config, checkpoint,
                       '--out', osp.join(work_dir, 'labelled')])


def tool_path(name: str) -> str:
    """Returns the path of a tool, as it is written in the folder of this process."""
    return _beside(osp.join('tools', name))


def enter() -> str:
    """Returns the command that enters the folder of this process."""
    return shlex.join(['cd', os.getcwd()])


def _beside(name: str) -> str:
    return name if osp.realpath(os.getcwd()) == ROOT else osp.join(ROOT, name)


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Leaves out options, with their values unless they are flags."""
    kept, skipped = [], False
    for word in words:
        if skipped:
            skipped = False
        elif word in options:
            skipped = word not in _FLAGS
        elif word.partition('=')[0] not in options:
            kept.append(word)
    return kept

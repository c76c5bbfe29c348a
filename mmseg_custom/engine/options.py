"""What the command line says of a run, beside its config."""
import argparse
from dataclasses import dataclass, fields

from ..distributed.launch import choose_device

UNTRAINED = 'none'


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are no settings of its config.

    Those that are (``work_dir``, ``load_from``, ``resume_from``, ``engine``, ``total_batch``) go
    into the config when it is resolved.

    Attributes:
        device: Device that the run computes on, 'cuda' or 'cpu'.
        launcher: Launcher of the processes: 'none', 'pytorch', 'slurm' or 'mpi'.
        gpu_id: Index of the GPU of a run in one process.
        work_dir: Folder of logs, checkpoints and results.
        load_from: Checkpoint that the weights are taken from.
        resume_from: Checkpoint that the run is resumed from.
        auto_resume: Whether the run is resumed from the newest whole checkpoint of its work dir.
        checkpoint: Checkpoint to test; 'none' for the untrained network.
        engine: How the run is spread over its processes: see :class:`..distributed.Engine`.
        total_batch: Images of an optimizer step, over all processes.
        seed: Seed of all generators; None for that of the resumed run, or else a new one.
        diff_seed: Whether each rank has a seed of its own.
        deterministic: Whether cuDNN is restricted to deterministic kernels.
        no_validate: Whether evaluation during training is left out.
        check_finite: Whether weights that hold NaN or infinity are refused.
        aug_test: Whether testing takes several scales and flips.
    """
    device: str = 'cpu'
    launcher: str = 'none'
    gpu_id: int = 0
    work_dir: str | None = None
    load_from: str | None = None
    resume_from: str | None = None
    auto_resume: bool = False
    checkpoint: str | None = None
    engine: str | None = None
    total_batch: int | None = None
    seed: int | None = None
    diff_seed: bool = False
    deterministic: bool = False
    no_validate: bool = False
    check_finite: bool = False
    aug_test: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace) -> 'RunOptions':
        """Takes the options of a command line.

        Raises:
            InputError: If a GPU is asked for and there is none.
        """
        given = vars(args)
        options = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        options['device'] = choose_device(args.device)
        if given.get('gpu_ids'):
            options['gpu_id'] = args.gpu_ids[0]
        return cls(**options)

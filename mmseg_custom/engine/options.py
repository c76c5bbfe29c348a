"""Options of a run that the command line sets."""
import argparse
from dataclasses import dataclass, fields

from ..choices import PATIENCE
from ..distributed.devices import choose_device


@dataclass(frozen=True)
class RunOptions:
    """Options of a run on the command line.

    Those that are also settings of a config (``work_dir``, ``load_from``,
    ``load_from_without``, ``resume_from``, ``engine``, ``total_batch``) are written into it when
    it is resolved.

    Attributes:
        device: Device that the run computes on, 'cuda' or 'cpu'.
        launcher: Launcher of the processes: 'none', 'pytorch', 'slurm' or 'mpi'.
        gpu_id: Index of the GPU, for a run in one process.
        work_dir: Folder of logs, checkpoints and results.
        load_from: Checkpoint to take the weights from.
        load_from_without: Parts of the network that start anew: beginnings of parameter names.
        resume_from: Checkpoint to resume from.
        auto_resume: Whether to resume from the newest complete checkpoint in the work dir.
        overwrite: Whether to remove the checkpoints of an earlier run in the work dir.
        checkpoint: Checkpoint to test; 'none' for the untrained network.
        engine: Type of the engine that distributes the run: see
            :class:`..distributed.options.Engine`.
        total_batch: Number of images in an optimizer step, over all processes.
        seed: Seed of all generators; None for the seed of the resumed run, or else a new one.
        diff_seed: Whether each rank has a seed of its own.
        deterministic: Whether deterministic kernels are used on a GPU: see :mod:`.determinism`.
        allow_nonfinite: Whether a training goes on when its loss is NaN or infinite.
        no_validate: Whether to train without evaluations.
        check_finite: Whether to refuse weights that hold NaN or infinity.
        aug_test: Whether to test with several scales and flips.
        spare_dir: Folder on another disk for the last checkpoint, if the work dir does not take it.
        wait_for_disk: Seconds to wait for room for the last checkpoint.
        owns_work_dir: Whether this is a training, which locks its work dir, writes its log there
            and may be resumed from it; a test or a cache build is not.
    """
    device: str = 'cpu'
    launcher: str = 'none'
    gpu_id: int = 0
    work_dir: str | None = None
    load_from: str | None = None
    load_from_without: list[str] | None = None
    resume_from: str | None = None
    auto_resume: bool = False
    overwrite: bool = False
    checkpoint: str | None = None
    engine: str | None = None
    total_batch: int | None = None
    seed: int | None = None
    diff_seed: bool = False
    deterministic: bool = False
    allow_nonfinite: bool = False
    no_validate: bool = False
    check_finite: bool = False
    aug_test: bool = False
    spare_dir: str | None = None
    wait_for_disk: float = PATIENCE
    owns_work_dir: bool = True

    @classmethod
    def of(cls, args: argparse.Namespace) -> 'RunOptions':
        """Reads the options from a parsed command line.

        Raises:
            InputError: If a GPU is asked for, or is there, and cannot be used.
        """
        given = vars(args)
        options = {field.name: given[field.name] for field in fields(cls) if field.name in given}
        options['device'] = choose_device(args.device)
        if given.get('gpu_ids'):
            options['gpu_id'] = args.gpu_ids[0]
        return cls(**options)

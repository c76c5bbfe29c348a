"""What of a sweep is finished, by the records in its folders."""
from ...distributed.collectives import broadcast_from_rank0
from ..identity import refuse_another
from ..run import Run
from .records import read_result, remove_records


def is_done(run: Run, auto_resume: bool) -> bool:
    """Returns whether the training of a head, or a run, of a sweep is done; on all ranks.

    Args:
        run: Its run.
        auto_resume: Whether the sweep is resumed; else records of an earlier one are removed.

    Raises:
        InputError: If its folder belongs to another run.
    """
    if not auto_resume:
        remove_records(run.work_dir)
        return False
    result = broadcast_from_rank0(read_result(run.work_dir))
    if result is None:
        return False
    refuse_another(result.get('run'), run.identity, run.work_dir)
    longer = run.cfg.runner.max_iters > result['iterations']
    return not (result['state'] == 'finished' and longer)


def all_done(run: Run, count: str) -> str:
    """Says that a sweep has nothing left to do, and how it is trained on or anew."""
    return (f'{run.work_dir} is finished, all {count}: --cfg-options runner.max_iters=N '
            'trains on up to N, --overwrite in the place of --auto-resume starts anew')

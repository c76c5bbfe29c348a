"""Trains all heads of a sweep, round by round, in step with each other."""
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import torch
from mmcv import Config
from mmcv.parallel.scatter_gather import scatter_kwargs
from mmcv.runner import get_dist_info
from mmseg.datasets import build_dataset
from mmseg.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ...distributed.collectives import broadcast_from_rank0
from ...distributed.options import Engine
from ...errors import InputError
from ..batch import resolve_batch
from ..cached import open_cache
from ..config import loader_options, translate
from ..identity import identity, refuse_another
from ..preemption import PreemptionHook, shield_worker
from ..randomness import SeededSamples
from ..test import build_test_loader
from ..train import build_train_loader, describe_run, hash_ahead
from .backbone import SharedBackbone
from .evaluate import evaluate
from .grid import Combination, combinations, union_of_layers
from .notes import forget, read_result, write_result
from .probe import Batches, Diverged, Probe
from .report import begin, report
from .rounds import plan
from .settings import Settings


def sweep(cfg: Config, path: str, device: str, validate: bool = True,
          timestamp: str | None = None) -> list[dict]:
    """Trains all combinations of a config's ``sweep``; the process group and seeds are set up.

    Args:
        cfg: A config with ``sweep``, ``work_dir`` and ``seed``.
        path: Of its file.
        device: 'cuda' or 'cpu'.
        validate: Evaluate during training, as ``cfg.evaluation`` says.
        timestamp: Of the logs' names.

    Returns:
        What came out, a dict for each head: see :mod:`.report`.

    Raises:
        InputError: If something in the config is wrong, or a checkpoint is of another run.
    """
    preemption = PreemptionHook()
    preemption.listen()
    translate(cfg)
    engine = _check(cfg)
    accumulation = resolve_batch(cfg, get_dist_info()[1])
    found = combinations(cfg, path)
    dataset = build_dataset(cfg.data.train)
    shared = SharedBackbone(found[0].cfg, union_of_layers(found), device)
    hash_ahead(shared.holder)
    samples: Dataset = SeededSamples(dataset, cfg.seed)
    if cfg.get('feature_cache'):
        samples = open_cache(_with_union(found[0], shared), shared.holder, dataset, device,
                             lambda: preemption.asked_by is not None)
    shared.network.to(device)
    validation = _validation(cfg, device) if validate else None
    metas = {one.name: _meta(one, dataset, accumulation) for one in found}
    left = [one for one in found if not _is_done(one, metas[one.name], cfg.get('auto_resume'))]
    begin(cfg, found)
    rounds = plan(left, device, bool(cfg.get('auto_resume')),
                  Settings.of(cfg.sweep).heads_at_once) if left else []
    for number, part in enumerate(rounds, 1):
        title = f'round {number} of {len(rounds)}' if len(rounds) > 1 else 'sweep'
        probes = [Probe(one, shared, dataset, device, engine, metas[one.name], accumulation,
                        timestamp, checkpoint, validation) for one, checkpoint in part.heads]
        loader = build_train_loader(cfg, samples, device, start=part.start * accumulation)
        _run(probes, loader, shared, preemption, device, title)
    return report(cfg, found)


def _check(cfg: Config) -> Engine:
    """The engine; refuses what a sweep cannot do.

    Raises:
        InputError: Naming the key.
    """
    engine = Engine.of(cfg.get('engine'))
    if engine.type == 'fsdp2':
        raise InputError("engine 'fsdp2': the backbone of a sweep is frozen, and each process "
                         'holds all of it: use auto, single or ddp')
    if cfg.get('load_from') or cfg.get('resume_from'):
        raise InputError('a sweep trains its heads from their own start: leave load_from and '
                         'resume_from out; --auto-resume goes on from what is in the work dir')
    if cfg.runner.type != 'IterBasedRunner':
        raise InputError(f'runner.type={cfg.runner.type!r}: a sweep counts iterations: expected '
                         'IterBasedRunner')
    return engine


def _with_union(combination: Combination, shared: SharedBackbone) -> Config:
    """The config of a run that reads the maps of all heads."""
    cfg = Config(combination.cfg._cfg_dict.deepcopy(), filename=combination.cfg.filename)
    cfg.model.backbone.update(out_indices=shared.layers, with_fpn=False)
    return cfg


def _validation(cfg: Config, device: str) -> DataLoader:
    loader = build_test_loader(cfg, build_dataset(cfg.data.val, dict(test_mode=True)), device,
                               'val')
    loader.worker_init_fn = shield_worker
    return loader


def _meta(combination: Combination, dataset: Dataset, accumulation: int) -> dict:
    cfg = combination.cfg
    images = loader_options(cfg, 'train')['samples_per_gpu'] * accumulation * get_dist_info()[1]
    return dict(describe_run(cfg, dataset), run=identity(cfg, dataset, images))


def _is_done(combination: Combination, meta: dict, auto_resume: bool) -> bool:
    """Whether nothing is left to do for a head.

    Raises:
        InputError: If what is in its folder is of another run.
    """
    if not auto_resume:
        forget(combination)
        return False
    result = broadcast_from_rank0(read_result(combination))
    if result is None:
        return False
    refuse_another(result.get('run'), meta['run'], combination.cfg.work_dir)
    longer = combination.cfg.runner.max_iters > result['iterations']
    return not (result['state'] == 'finished' and longer)


def _run(probes: list[Probe], loader: DataLoader, shared: SharedBackbone,
         preemption: PreemptionHook, device: str, title: str) -> None:
    """The iterations of a round; heads that diverge drop out."""
    for probe in probes:
        probe.start()
    first = probes[0].runner
    preemption.before_run(first)
    end, stream = first.max_iters, _stream(loader, shared, device)
    bar = tqdm(total=end, initial=first.iter, unit='iteration', desc=title,
               disable=first.rank > 0, mininterval=1 if sys.stderr.isatty() else 30)
    with bar:
        _evaluate_due(probes, shared)
        while probes and probes[0].runner.iter < end:
            batches = Batches([next(stream) for _ in range(probes[0].runner.accumulation)],
                              len(loader))
            probes = [probe for probe in probes if _step(probe, batches)]
            if not probes:
                break
            bar.update()
            losses = [probe.loss for probe in probes]
            bar.set_postfix_str(f'loss {min(losses):.4g} to {max(losses):.4g}', refresh=False)
            for probe in probes:
                probe.remove_older()
            preemption.after_train_iter(_all_as_one(probes))
            _evaluate_due(probes, shared)
    for probe in probes:
        probe.finish()
        write_result(probe.combination, state='finished', iterations=probe.runner.iter,
                     loss=probe.loss, run=probe.runner.meta['run'])


def _stream(loader: DataLoader, shared: SharedBackbone, device: str) -> Iterator[dict]:
    """Training batches on the device, with the maps of all layers in the place of images."""
    to = [torch.cuda.current_device() if device == 'cuda' else -1]
    for batch in loader:
        inputs, _ = scatter_kwargs((batch,), {}, to)
        batch, = inputs[0]
        feats = shared.of_batch(batch)
        yield {**{name: value for name, value in batch.items() if name != 'img'}, 'feats': feats}


def _step(probe: Probe, batches: Batches) -> bool:
    """Trains a head for an iteration; False if it has diverged."""
    try:
        probe.step(batches)
    except Diverged as error:
        runner = probe.runner
        get_root_logger().error('%s is stopped, the others go on: %s; its checkpoints, if it has '
                                'any, are from before; try a smaller learning rate', probe.name,
                                error)
        runner.logger.error('stopped: %s', error)
        write_result(probe.combination, state='diverged', iterations=runner.iter, reason=str(error),
                     run=runner.meta['run'])
        probe.close()
        return False
    return True


def _evaluate_due(probes: Sequence[Probe], shared: SharedBackbone) -> None:
    due = [probe for probe in probes if probe.evaluation_due()]
    if due:
        evaluate(due, shared)
        _log_scores(due)


def _log_scores(probes: Sequence[Probe]) -> None:
    """One line on rank 0: the heads' own logs have the rest."""
    scores = {probe.name: probe.evaluation.score for probe in probes
              if probe.evaluation.score is not None}
    if scores:
        best = max(scores, key=scores.get)
        get_root_logger().info(
            'iteration %d: mIoU %.2f to %.2f; best: %s', probes[0].runner.iter,
            100 * min(scores.values()), 100 * scores[best], best)


def _all_as_one(probes: Sequence[Probe]) -> SimpleNamespace:
    """What the hook of preemption asks of a runner, for all heads together."""
    first = probes[0].runner

    def save_checkpoint(_folder: str) -> None:
        for probe in probes:
            probe.save()

    return SimpleNamespace(
        hooks=[], rank=first.rank, world_size=first.world_size, model=first.model,
        work_dir=None, logger=get_root_logger(), iter=first.iter - 1,
        save_checkpoint=save_checkpoint)

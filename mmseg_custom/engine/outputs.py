"""The outputs of a test run: targets are tried first, and results are never lost."""
import os.path as osp
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mmcv
import numpy as np
from mmcv.runner import get_dist_info
from mmseg.datasets import CustomDataset
from mmseg.utils import get_root_logger

from ..datasets.nesting import innermost_datasets
from ..errors import InputError
from ..evaluation import evaluate, pre_eval, write_results
from ..evaluation.metric_names import BOUNDARY, check_metrics, check_options
from ..evaluation.results import UNPUBLISHED
from ..evaluation.tables import summarize
from ..files import as_save_error, atomic_path
from ..logs import saying
from ..targets import spare_folders, try_target, write_or_rescue
from .painter import Painter
from .predict import Keep
from .predictions import Predictions, name_of, save_partial
from .run import Run
from .run_folder.tested import describe_test

CITYSCAPES = ['cityscapes']  # --eval by the data set's own code, on files


@dataclass(frozen=True)
class Outputs:
    """What is asked of a test run.

    Args:
        run: Run with test data.
        config: Path of the config, for the record.
        checkpoint: Path of the checkpoint, or 'none', for the record.
        metrics: Names of the metrics; None without an evaluation.
        out: File for the results of all images; None writes none.
        format_only: Whether label files for a server are written.
        show: Whether pictures are shown in a window.
        show_dir: Folder for pictures; None writes none.
        opacity: Opacity of the paint, in (0, 1].
        options: Options of the evaluation or of ``format_results``.

    Raises:
        InputError: If the data set has no such metrics or files.
    """
    run: Run
    config: str
    checkpoint: str
    metrics: Sequence[str] | None = None
    out: str | None = None
    format_only: bool = False
    show: bool = False
    show_dir: str | None = None
    opacity: float = 0.5
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        parts = innermost_datasets(self._dataset)
        for part in parts if self._on_files else ():
            if type(part).format_results is CustomDataset.format_results:
                raise InputError(f'--format-only: {type(part).__name__} has no format for a '
                                 'server; --out writes the label maps')
        if self.metrics == CITYSCAPES and len(parts) > 1:
            raise InputError(f'--eval cityscapes: data.test has {len(parts)} data sets; test them '
                             'one after the other')
        if self.metrics:
            check_metrics(self._dataset, self.metrics)
        check_options(self._dataset, self.options, self._on_files)

    @property
    def _dataset(self) -> CustomDataset:
        return self.run.data['test']

    @property
    def _on_files(self) -> bool:
        return self.format_only or self.metrics == CITYSCAPES

    @property
    def _evaluation_options(self) -> dict[str, Any]:
        folder = dict(imgfile_prefix=osp.join(self.run.work_dir, 'format_results'))
        return {**(folder if self._on_files else {}), **self.options}

    @property
    def _results_path(self) -> str:
        scale = 'multi' if self.run.options.aug_test else 'single'
        return osp.join(self.run.work_dir, f'eval_{scale}_scale_{self.run.timestamp}.json')

    @property
    def _frozen_dtype(self) -> dict[str, str]:
        """Dtype that the weights of a frozen backbone were rounded to, for the record."""
        kind = self.run.cfg.model.get('backbone', {}).get('frozen_dtype')
        return dict(frozen_dtype=kind) if kind else {}

    def try_targets(self) -> None:
        """Tries to write in all places that are to be written; called on rank 0.

        Raises:
            SaveError: Naming the one that cannot be.
        """
        for path in (self.out, self._results_path if self.metrics else None):
            if path is not None:
                try_target(path)
        for folder in (self.show_dir, self._evaluation_options.get('imgfile_prefix')):
            if folder:
                try_target(osp.join(folder, 'image.png'))

    def keep(self) -> Keep | None:
        """Returns the function that turns labels into what is kept of them; None keeps them."""
        if self._on_files:
            return self._write_label_files
        if self.metrics:
            return partial(pre_eval, self._dataset, boundary=BOUNDARY in self.metrics)
        return None

    def painter(self) -> Painter | None:
        """Returns what paints the pictures; None if there are to be none."""
        if not (self.show or self.show_dir):
            return None
        return Painter(self._dataset, self.show_dir, self.show, self.opacity)

    def write(self, found: Predictions) -> Iterator[str]:
        """Writes what was asked for; called on rank 0.

        Yields:
            Lines that say what was written.

        Raises:
            InputError: If no image could be read, or a file is in another place than it was to be.
            SaveError: If no place takes it.
        """
        if found.skipped:
            yield f'{len(found.skipped)} of {found.total} images are skipped:'
            yield from (f'  {found.skipped[index]}' for index in sorted(found.skipped))
        results = found.in_order()
        if not results:
            raise InputError(f'none of the {found.total} images could be read')
        elsewhere = []
        if self.out:
            written = self._write_file(self.out, partial(_dump, results))
            yield f'results: {written}'
            elsewhere += [(self.out, written)] if written != self.out else []
        if self.format_only:
            yield f'label files: {self._evaluation_options["imgfile_prefix"]}'
        if self.metrics:
            with saying(f'computing the metrics of {len(results)} images'):
                evaluation = evaluate(self._dataset, results, self.metrics, sorted(found.results),
                                      logger=get_root_logger(), **self._evaluation_options)
            yield f'{len(results)} images: ' + summarize(
                evaluation['metric'], self._dataset.CLASSES or (), evaluation.get('interval'),
                [part['image_folder'] for part in evaluation.get('data_sets', ())])
            for kind in self._frozen_dtype.values():
                yield f'frozen weights in {kind}: {UNPUBLISHED}, which are of bfloat16'
            written = self._write_file(self._results_path, partial(
                write_results, evaluation=evaluation, records=results, dataset=self._dataset,
                cfg=self.run.cfg, config=self.config, checkpoint=self.checkpoint,
                device=self.run.device, seconds=found.seconds, memory=found.memory,
                **self._frozen_dtype,
                skipped=[name_of(self._dataset, index) for index in sorted(found.skipped)]))
            yield f'metrics: {written} (tools/report.py makes a page of them)'
            if written == self._results_path:
                describe_test(self.run, written)
            elsewhere += [(self._results_path, written)] if written != self._results_path else []
        if elsewhere:
            raise InputError('; '.join(f'{path} could not be written: its content is in {written}'
                                       for path, written in elsewhere))

    def write_partial(self, found: Predictions) -> str:
        """Writes the results of this rank of a run that ended early; returns a line that says so.

        Raises:
            SaveError: If no place takes them.
        """
        rank, world_size = get_dist_info()
        name = f'partial_{self.run.timestamp}' + (f'_rank{rank}' if world_size > 1 else '')
        return save_partial(found, osp.join(self.run.work_dir, f'{name}.pkl'), self._dataset)

    def _write_label_files(self, labels: list[np.ndarray], indices: list[int]) -> list:
        options = self._evaluation_options
        try:
            return self._dataset.format_results(labels, indices=indices, **options)
        except OSError as error:  # of a full disk, Pillow does not say which file it was
            raise as_save_error(error, osp.join(options['imgfile_prefix'], '')) from error

    def _write_file(self, path: str, write: Callable[[str], object]) -> str:
        """Writes a file, elsewhere if need be; returns its path."""
        return write_or_rescue(path, write, [self.run.work_dir, *spare_folders()])


def _dump(results: list, path: str) -> None:
    with atomic_path(path) as part:
        mmcv.dump(results, part, file_format='pkl')

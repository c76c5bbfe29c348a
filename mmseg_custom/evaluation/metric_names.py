"""The metrics by their names: which there are, which a data set gives, which are means."""
import inspect
import re
from collections.abc import Collection, Mapping, Sequence

from mmseg.datasets import CustomDataset
from mmseg.utils import get_root_logger
from torch.utils.data import Dataset

from ..choices import BOUNDARY, MMSEG_METRICS
from ..datasets.concatenated import ConcatTestDataset
from ..datasets.nesting import innermost_datasets
from ..errors import InputError, hint, nearest
from ..plugins import is_known

OF_OTHERS = ('efficient_test', 'imgfile_prefix')  # options that mmseg's documentation names
# Metric -> the means that it gives; each is also given of every class.
MEANS = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'),
             mFscore=('mFscore', 'mPrecision', 'mRecall'), mBIoU=('mBIoU',))
_OF_PART = re.compile(r'\d+_')  # before a metric: the number of one of several data sets


def metrics_of(options: Mapping) -> list[str]:
    """Returns the metrics that ``evaluation`` of a config asks for."""
    metrics = options.get('metric', 'mIoU')
    return [metrics] if isinstance(metrics, str) else list(metrics)


def check_evaluation(options: Mapping, dataset: Dataset) -> None:
    """Checks ``evaluation`` of a config before the start.

    Args:
        options: Settings of ``evaluation``.
        dataset: Validation data.

    Raises:
        InputError: If the data set does not support a metric, or does not give that of the best
            checkpoint.
    """
    metrics = metrics_of(options)
    check_metrics(dataset, metrics, 'evaluation.metric')
    if options.get('save_best') not in (None, 'auto'):
        check_best(dataset, metrics, options['save_best'])


def check_metrics(dataset: Dataset, metrics: Sequence[str], setting: str = '--eval') -> None:
    """Refuses metrics that the data set does not support, before a long run rather than after it.

    Args:
        dataset: Data set to evaluate.
        metrics: Names of metrics.
        setting: Where they come from, for the message.

    Raises:
        InputError: If a metric is unknown, or needs mmseg's own ``pre_eval``.
    """
    if isinstance(dataset, ConcatTestDataset):
        for part in dataset.datasets:
            check_metrics(part, metrics, setting)
        return
    check_kind_measures(type(dataset), metrics, setting)


def check_kind_measures(kind: type, metrics: Sequence[str], setting: str) -> None:
    """Refuses metrics that data sets of a class do not support.

    Raises:
        InputError: See :func:`check_metrics`.
    """
    known = (*MMSEG_METRICS, BOUNDARY)
    if BOUNDARY in metrics and not measures_as_mmseg(kind):
        raise InputError(f'{setting} {BOUNDARY}: {kind.__name__} measures predictions in its own '
                         'way')
    unknown = [name for name in metrics if name not in known]
    if unknown and getattr(kind, 'evaluate', None) is CustomDataset.evaluate:
        raise InputError(f'{setting} {unknown[0]}: expected some of {", ".join(known)}'
                         f'{hint(unknown[0], known)}')


def check_options(dataset: Dataset, options: Collection[str], formats: bool,
                  setting: str = '--eval-options') -> None:
    """Refuses options that neither the evaluation nor the writing of label files reads.

    mmseg's methods take any, and ignore what they do not know.

    Args:
        dataset: Data set to evaluate.
        options: Names of the options.
        formats: Whether label files are written.
        setting: Where they come from, for the message.

    Raises:
        InputError: Naming the nearest that is read.
    """
    for part in innermost_datasets(dataset):
        methods = [type(part).evaluate] + ([type(part).format_results] if formats else [])
        if not all(map(is_known, methods)):
            continue  # A plugin's may read any.
        known = {name for method in methods for name in inspect.signature(method).parameters}
        known -= {'self', 'results', 'kwargs', 'metric', 'logger', 'indices', 'gt_seg_maps'}
        for name in options:
            if name in OF_OTHERS and name not in known:
                get_root_logger().warning('%s %s has no effect here', setting, name)
            elif name not in known:
                near = nearest(name, known)
                raise InputError(f'{setting} {name}: nothing reads it; ' + (
                    f'did you mean {near!r}?' if near else
                    f'expected {" or ".join(sorted(known)) or "none"}'))


def check_best(dataset: Dataset, metrics: Sequence[str], best: str) -> None:
    """Refuses a metric of the best checkpoint that an evaluation does not give.

    Raises:
        InputError: Naming the nearest that it does.
    """
    check_kind_gives(type(dataset), dataset.CLASSES, metrics, best)


def check_kind_gives(kind: type, classes: Sequence[str], metrics: Sequence[str], best: str) -> None:
    """Refuses a metric of the best checkpoint that data sets of a class do not give.

    Raises:
        InputError: See :func:`check_best`.
    """
    if getattr(kind, 'evaluate', None) is not CustomDataset.evaluate:
        return  # its own metrics have names of their own
    found = [*metrics, *([] if set(metrics) - {BOUNDARY} else ['mIoU'])]
    means = {'aAcc', *(mean for name in found for mean in MEANS[name])}
    of_classes = {f'{mean[1:]}.{name}' for mean in means - {'aAcc'} for name in classes}
    if best in means | of_classes:
        return
    near = hint(best, sorted(means | of_classes))
    raise InputError(f'evaluation.save_best={best!r}: metric={", ".join(metrics)} gives no such '
                     f'figure{near}; expected one of {", ".join(sorted(means))}, or of a class, as '
                     f'{metrics[0][1:]}.{classes[0]}')


def means_of(metrics: Mapping[str, float], data_set: int | None = None) -> dict[str, float]:
    """Selects the metrics that are not of a single class.

    Args:
        metrics: Metrics by name, as :func:`.metrics.evaluate` returns them.
        data_set: Number of one of several data sets; default: those of all together.
    """
    found = {}
    for name, value in metrics.items():
        number, _, rest = name.partition('_') if _OF_PART.match(name) else ('', '', name)
        if '.' not in name and number == ('' if data_set is None else str(data_set)):
            found[rest] = value
    return found


def measures_as_mmseg(kind: type) -> bool:
    """Returns whether data sets of a class measure predictions by mmseg's own ``pre_eval``."""
    return getattr(kind, 'pre_eval', None) is CustomDataset.pre_eval

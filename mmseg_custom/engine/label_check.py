"""Checks the labels of every training sample where it is loaded, before the loss sees them.

On a GPU, a label beyond the classes ends the process in an assertion that names neither file nor
label; some losses take it for the last class. H W pixels, K classes.
"""
from dataclasses import dataclass

import numpy as np
from mmcv.parallel import DataContainer
from mmseg.models.builder import HEADS, LOSSES, SEGMENTORS
from torch.utils.data import Dataset

from ..datasets.ground_truth import IGNORE_INDEX
from ..errors import InputError, some_of
from ..plugins import is_known
from .classes import classes_of, makes_labels
from .config import heads_of, losses_of

LABELS = 'gt_semantic_seg'


@dataclass(frozen=True)
class LabelRule:
    """Labels that all heads of a network take.

    Attributes:
        classes: Number of classes K: labels are 0..K-1.
        ignored: Further labels that are taken, and have no loss.
    """
    classes: int
    ignored: frozenset[int]

    @classmethod
    def of(cls, *models: dict) -> 'LabelRule | None':
        """Reads the rule from the configs of segmentors; None where theirs may be another.

        Heads and losses of mmseg and of this package take labels as they are.

        Args:
            *models: ``model`` of one config or of several, whose heads share the samples.
        """
        heads = [head for model in models
                 if _has_known(SEGMENTORS.get(model['type']), 'forward_train')
                 for _, head in heads_of(model) if _takes_labels(head)]
        if not heads:
            return None
        return cls(min(map(classes_of, heads)), frozenset.intersection(
            *(frozenset({head.get('ignore_index', IGNORE_INDEX)}) for head in heads)))

    def check(self, labels: np.ndarray, name: str) -> None:
        """Checks the labels of a sample, of any shape.

        Raises:
            InputError: If a label is neither a class nor ignored.
        """
        wrong = (labels >= self.classes) | (labels < 0)
        for number in self.ignored:
            wrong &= labels != number
        if not wrong.any():
            return
        numbers = np.unique(labels[wrong]).tolist()
        ignored = ' or '.join(map(str, sorted(self.ignored)))
        raise InputError(
            f'{name}: after its pipeline, its labels hold {some_of(numbers, shown=5)} '
            f'({int(wrong.sum())} pixels): the heads take 0..{self.classes - 1}'
            + (f', and {ignored} (ignore_index) where they are ignored' if ignored else '')
            + '; correct the labels, num_classes or ignore_index, and where padding writes the '
            'number, seg_pad_val of that step')


class CheckedSamples(Dataset):
    """Samples whose labels are checked as they are loaded.

    Args:
        samples: Training samples, by any index.
        rule: Labels that they may have.
    """

    def __init__(self, samples: Dataset, rule: LabelRule):
        self.samples, self.rule = samples, rule

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Returns the sample.

        Raises:
            InputError: If it has a label that the heads do not take.
        """
        sample = self.samples[key]
        labels = sample.get(LABELS)
        if isinstance(labels, DataContainer):
            self.rule.check(labels.data.numpy(), _name_of(sample))
        return sample


def with_checked_labels(samples: Dataset, *models: dict) -> Dataset:
    """Returns the samples with their labels checked, as far as the rule is known."""
    rule = LabelRule.of(*models)
    return samples if rule is None else CheckedSamples(samples, rule)


def _takes_labels(head: dict) -> bool:
    """Returns whether a head takes labels as they are, and leaves them to losses of mmseg."""
    kind = HEADS.get(head.get('type'))
    return (_has_known(kind, 'forward_train') and _has_known(kind, 'losses')
            and not makes_labels(head) and isinstance(head.get('num_classes'), int)
            and head.get('ignore_index', IGNORE_INDEX) is not None
            and all(_has_known(LOSSES.get(loss.get('type')), 'forward')
                    for _, loss in losses_of(head)))


def _has_known(kind: type | None, method: str) -> bool:
    """Returns whether a method of a class is one of a known library."""
    return is_known(getattr(kind, method, None))


def _name_of(sample: dict) -> str:
    metas = getattr(sample.get('img_metas'), 'data', {})
    return str(metas.get('filename', 'a sample'))

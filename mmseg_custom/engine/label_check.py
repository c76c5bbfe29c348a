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
from ..errors import InputError
from .classes import makes_labels
from .config import heads_of

KNOWN = ('mmseg', 'mmseg_custom')  # packages whose heads take labels as they are
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

        Args:
            *models: ``model`` of one config or of several, whose heads share the samples.
        """
        heads = [head for model in models if _is_known(SEGMENTORS.get(model['type']),
                                                       'forward_train')
                 for _, head in heads_of(model) if _takes_labels(head)]
        if not heads:
            return None
        return cls(min(head['num_classes'] for head in heads), frozenset.intersection(
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
            f'{name}: after its pipeline, its labels hold {", ".join(map(str, numbers[:5]))} '
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
    if not _is_known(kind, 'forward_train') or not _is_known(kind, 'losses') or makes_labels(head):
        return False
    losses = head.get('loss_decode', dict(type='CrossEntropyLoss'))
    return (isinstance(head.get('num_classes'), int)
            and head.get('ignore_index', IGNORE_INDEX) is not None
            and all(_is_known(LOSSES.get(loss.get('type')), 'forward')
                    for loss in (losses if isinstance(losses, (list, tuple)) else [losses])))


def _is_known(kind: type | None, method: str) -> bool:
    """Returns whether a method of a class is one of mmseg's or ours."""
    found = getattr(kind, method, None)
    return found is not None and found.__module__.partition('.')[0] in KNOWN


def _name_of(sample: dict) -> str:
    metas = getattr(sample.get('img_metas'), 'data', {})
    return str(metas.get('filename', 'a sample'))

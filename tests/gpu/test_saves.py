"""Checkpoints in the background of a training on a GPU: copies in pinned memory."""
import pytest
import torch
from helpers.runs import assert_same_end, spread

from mmseg_custom.checkpoint.staging import HostCopies

pytestmark = pytest.mark.gpu


def test_copies_are_pinned_and_of_the_moment(device):
    """The copy waits for the work before it, and what follows does not change it."""
    tensors = [torch.zeros(2**22, device=device) for _ in range(4)]
    copies = HostCopies(pinned=device == 'cuda')
    for number in range(3):
        for tensor in tensors:
            for _ in range(20):
                tensor.add_(1)
        copied = copies.copy(dict(state=tensors))['state']
        for tensor in tensors:
            tensor.mul_(2)
        for tensor, copy in zip(tensors, copied):
            assert copy.device.type == 'cpu' and copy.is_pinned() == (device == 'cuda')
            assert bool((copy * 2 == tensor.cpu()).all()), number


def test_a_run_ends_as_one_that_writes_at_once(train, small_config, tmp_path):
    for name, option in (('run', True), ('whole', False)):
        text = train(small_config, '--work-dir', tmp_path / name, '--seed', 5, '--deterministic',
                     *spread(1), '--cfg-options', f'checkpoint_config.background={option}')
        assert ('written in' in text) == option
    assert_same_end(tmp_path / 'run', tmp_path / 'whole')

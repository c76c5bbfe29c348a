import pytest
import torch
from mmcv.utils import Registry, build_from_cfg
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmseg_custom.engine.blame import reading
from mmseg_custom.engine.cli import explain
from mmseg_custom.errors import InputError
from mmseg_custom.layers.pos_embed import PosEmbedCache
from mmseg_custom.models.decode_heads.fcn_head import FCNHead


class Colours(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return nn.functional.one_hot(torch.zeros(1), 3)  # which takes whole numbers


def test_what_a_library_raises_names_the_key():
    with pytest.raises(InputError, match=r'model does not work: .* \(torch/nn/.*\d\)'):
        with reading('model'):
            nn.Linear(2, 2)(torch.zeros(1, 3))
    registry = Registry('things')
    with pytest.raises(InputError, match="optimizer does not work: KeyError: 'some' is not in the"
                       '|some is not in the'):
        with reading('optimizer'):
            build_from_cfg(dict(type='some'), registry)


def test_arguments_that_our_constructors_pass_on_are_input():
    with pytest.raises(InputError, match='model does not work: TypeError: .*in_channels'):
        with reading('model'):
            FCNHead(channels=3, num_classes=2)


def test_a_fault_of_this_package_or_of_a_user_s_module_stays_one():
    with pytest.raises(TypeError), reading('model'):
        PosEmbedCache()(None)
    with pytest.raises(ZeroDivisionError), reading('model'):
        1 / 0  # noqa: B018


def test_failures_with_a_line_of_their_own_keep_it():
    with pytest.raises(torch.OutOfMemoryError), reading('model'):
        raise torch.OutOfMemoryError('CUDA out of memory')
    with pytest.raises(FileNotFoundError), reading('model'):
        open('/no/such/file')


def test_newlines_of_names_do_not_cut_an_error_off():
    error = InputError('image a\nb.jpg is broken\r')
    assert explain(error) == str(error) == r'image a\nb.jpg is broken\r'

    class Named(Colours):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise InputError('image a\nb.jpg is broken')

    with pytest.raises(InputError) as raised:
        list(DataLoader(Named(), num_workers=1))
    assert explain(raised.value) == r'image a\nb.jpg is broken'

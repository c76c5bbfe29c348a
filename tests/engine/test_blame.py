from types import SimpleNamespace

import pytest
import torch
from helpers.data import SMALL_LINEAR, prepare, write_config
from mmcv.utils import Registry, build_from_cfg
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmseg_custom.engine.blame import first_iteration, reading
from mmseg_custom.engine.cli import explain
from mmseg_custom.engine.train import train
from mmseg_custom.errors import InputError
from mmseg_custom.layers.pos_embed import PosEmbedCache
from mmseg_custom.models.decode_heads.fcn_head import FCNHead


class Colours(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return nn.functional.one_hot(torch.zeros(1), 3)  # which takes whole numbers


def test_what_a_library_raises_names_the_key():
    with pytest.raises(InputError, match=r'model does not work: .* \(torch/nn/.*\d: '):
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


def test_what_fails_later_is_not_blamed_on_the_first_iteration():
    runner = SimpleNamespace(iter=0)
    with pytest.raises(RuntimeError, match='mat1') as raised, first_iteration(runner):
        runner.iter = 3
        nn.Linear(2, 2)(torch.zeros(1, 3))
    assert explain(raised.value) is None
    with pytest.raises(InputError, match='fails in the first iteration'), first_iteration(runner):
        nn.Linear(2, 2)(torch.zeros(1, 3))


def test_newlines_of_names_do_not_cut_an_error_off():
    error = InputError('image a\nb.jpg is broken\r')
    assert explain(error) == str(error) == r'image a\nb.jpg is broken\r'

    class Named(Colours):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise InputError('image a\nb.jpg is broken')

    with pytest.raises(InputError) as raised:
        list(DataLoader(Named(), num_workers=1, multiprocessing_context='fork'))
    assert explain(raised.value) == r'image a\nb.jpg is broken'


def test_a_step_of_a_pipeline_is_named_with_its_image(shared_data, tmp_path):
    extra = SMALL_LINEAR + "data['train']['pipeline'] = [step for step in train_pipeline if "
    extra += "step['type'] != 'LoadAnnotations']\n"
    run = prepare(write_config(tmp_path / 'some.py', shared_data, extra=extra), ['train'])
    with pytest.raises(InputError, match=r'step 2 \(RandomCrop\) of the pipeline fails on .*ADE_tr'
                       '.*jpg: KeyError: gt_semantic_seg'):
        run.data['train'][0]


@pytest.mark.parametrize(('lines', 'message'), [
    ("model['decode_head'].update(in_channels=48, channels=48)",
     r'data.train or optimizer fails in the first iteration: .*\(torch/nn/functional.py:\d+'),
    ("data['train']['pipeline'][-3].update(size=(57, 57))", 'multiples of the 14-pixel patch'),
    ("del data['train']['pipeline'][-1]", 'first iteration: .* expected Collect as the last step'),
    ("data['val']['pipeline'] = train_pipeline[:1]",
     'pipeline of data.val or data.test returns img_info, .*: expected img and img_metas'),
    ("data['val']['pipeline'][-1]['transforms'][-3] = dict(type='Normalize', mean=[1.0, 2.0], "
     'std=[1.0] * 3)',
     r'step 3 \(Normalize\) of the pipeline fails on .*ADE_val_00000001.jpg'),
    ("data['val']['ann_dir'] = None", 'ADE20KDataset has no ann_dir: evaluation needs labels'),
    ('model.update(test_cfg=None)', 'test_cfg.mode=None'),
])
def test_the_first_iteration_and_the_evaluation_end_in_one_line(shared_data, tmp_path, lines,
                                                                message):
    path = write_config(tmp_path / 'some.py', shared_data, extra=SMALL_LINEAR + lines)
    run = prepare(path, settings={'evaluation.interval': 1, 'runner.max_iters': 1},
                  work_dir=str(tmp_path))
    with pytest.raises(InputError, match=message):
        train(run)


def test_only_the_first_iteration_is_blamed_on_the_config():
    """And what was explained in a later one stays explained."""
    class Runner:
        iter = 3

    for passed, error, expected in (
            (0, None, InputError), (1, None, RuntimeError), (1, InputError('x'), InputError)):
        runner = Runner()
        with pytest.raises(expected), first_iteration(runner):
            runner.iter += passed
            try:
                nn.Linear(2, 2)(torch.zeros(1, 3))
            except RuntimeError as cause:
                if error is None:
                    raise
                raise error from cause


def test_kernels_that_are_not_deterministic_keep_their_line():
    text = 'some_cuda does not have a deterministic implementation, but you set'
    with pytest.raises(RuntimeError) as raised, reading('model'):
        raise RuntimeError(text)
    assert '--no-deterministic' in explain(raised.value)

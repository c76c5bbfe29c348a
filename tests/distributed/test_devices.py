import logging

import pytest
import torch

from mmseg_custom.distributed import devices
from mmseg_custom.distributed.devices import GPUFacts, diagnose
from mmseg_custom.errors import InputError
from mmseg_custom.units import GIB

CUDA13 = ['sm_75', 'sm_80', 'sm_86', 'sm_90', 'sm_100', 'sm_120']
NO_DRIVER = 'Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU'
OLD_DRIVER = 'The NVIDIA driver on your system is too old (found version 11040). Please update'
NONE_VISIBLE = 'No CUDA GPUs are available'


@pytest.mark.parametrize('facts, words, unexpected, warns', [
    (GPUFacts('13.0', NO_DRIVER), 'has no NVIDIA GPU', False, False),
    (GPUFacts('13.0', NO_DRIVER, cards=2), '2 NVIDIA card.s., but no driver', False, True),
    (GPUFacts('13.0', NO_DRIVER, driver='580.65', cards=8),
     'this process sees no device file .*--gpus all', False, True),
    (GPUFacts('13.0', NONE_VISIBLE, visible='', files=8, driver='580.65'),
     "CUDA_VISIBLE_DEVICES='' hides all GPUs", False, False),
    (GPUFacts('13.0', NONE_VISIBLE, visible='-1', files=8, driver='580.65'), "'-1' hides", False,
     False),
    (GPUFacts('13.0', NONE_VISIBLE, visible='9', files=8, driver='580.65'),
     "CUDA_VISIBLE_DEVICES='9' names no GPU of this machine, which has 8", True, True),
    (GPUFacts('13.0', OLD_DRIVER, files=1, driver='470.57.02'),
     r'driver \(470.57.02\) is too old for this PyTorch, which was built for CUDA 13.0: update',
     True, True),
    (GPUFacts(None, 'Torch not compiled with CUDA enabled', files=1, driver='580.65'),
     'built without CUDA: install', True, True),
    (GPUFacts(None, 'Torch not compiled with CUDA enabled'), 'built without CUDA', False, False),
    (GPUFacts('13.0', 'Unexpected error from cudaGetDeviceCount(). Error 802: system not yet '
              'initialized\nmore', files=8, driver='580.65'),
     r'does not start \(.*initialized\): start nvidia-fabricmanager', True, True)])
def test_reasons_are_told_apart(facts, words, unexpected, warns):
    problem = diagnose(facts)
    with pytest.raises(InputError, match=words):
        raise InputError(problem.text)
    assert (problem.unexpected, problem.worth_a_warning) == (unexpected, warns)
    assert '\n' not in problem.text


def test_device(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert (devices.choose_device(), devices.choose_device('cpu')) == ('cuda', 'cpu')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(devices, '_read_facts', lambda: GPUFacts('13.0', NO_DRIVER))
    assert devices.choose_device() == devices.choose_device('cpu') == 'cpu' and not caplog.records
    with pytest.raises(InputError, match='--device cuda: this machine has no NVIDIA GPU.*'
                                         'use --device cpu$'):
        devices.choose_device('cuda')


def test_no_silent_run_on_the_cpu(monkeypatch, caplog):
    """The worst end of a broken driver is a run that takes weeks."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(logging.getLogger('mmseg'), 'propagate', True)
    monkeypatch.setattr(devices, '_read_facts', lambda: GPUFacts('13.0', OLD_DRIVER, files=1))
    with pytest.raises(InputError, match='too old.*, or use --device cpu$'):
        devices.choose_device()
    assert devices.choose_device('cpu') == 'cpu'
    monkeypatch.setattr(devices, '_read_facts', lambda: GPUFacts('13.0', NO_DRIVER, cards=1))
    assert devices.choose_device() == 'cpu'
    assert 'running on the CPU: this machine has 1 NVIDIA card' in caplog.text


def test_facts_of_this_machine():
    facts = devices._read_facts()
    assert (facts.error is None) == torch.cuda.is_available()


@pytest.mark.parametrize('capability, archs, runs', [
    ((9, 0), CUDA13, True), ((8, 9), CUDA13, True), ((8, 0), CUDA13, True),
    ((7, 0), CUDA13, False), ((11, 0), CUDA13, False), ((12, 1), CUDA13, True),
    ((9, 0), ['sm_90a'], True), ((9, 1), ['sm_90a'], False), ((10, 3), ['sm_100f'], True),
    ((9, 0), ['sm_80', 'compute_80'], True), ((7, 5), ['sm_80', 'compute_80'], False),
    ((9, 0), ['gfx90a'], True), ((9, 0), [], True)])
def test_kernels_for_a_gpu(capability, archs, runs):
    missing = devices.missing_kernels(capability, archs)
    assert (missing is None) == runs
    if missing:
        assert f'compute capability {capability[0]}.{capability[1]}, for which' in missing


@pytest.fixture
def two_gpus(monkeypatch):
    """Two cards of 80 GiB, the second of them full."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,5')
    memory = {0: (79 << 30, 80 << 30), 1: (20 << 30, 80 << 30)}
    for name, value in dict(
            device_count=lambda: 2, get_device_name=lambda index: 'NVIDIA X',
            get_device_capability=lambda index: (9, 0), get_arch_list=lambda: CUDA13,
            set_device=lambda index: None, mem_get_info=memory.get).items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_gpu_of_a_number(two_gpus, monkeypatch):
    devices.use_gpu(1)
    for index in (2, -1):
        with pytest.raises(InputError, match=rf'--gpu-id {index}: expected 0..1, as 2 GPU\(s\) are '
                                             r"visible \(CUDA_VISIBLE_DEVICES='4,5'\)"):
            devices.use_gpu(index)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index: (6, 1))
    with pytest.raises(InputError, match=r'GPU 0 \(NVIDIA X\) has compute capability 6.1'):
        devices.use_gpu(0)


def test_gpu_that_takes_no_process(two_gpus, monkeypatch):
    def refuse(index: int) -> None:
        raise RuntimeError('CUDA error: out of memory\nCUDA kernel errors might be ...')

    monkeypatch.setattr(torch.cuda, 'mem_get_info', refuse)
    with pytest.raises(InputError, match=r'takes no process \(CUDA error: out of memory\): end'):
        devices.use_gpu(0)


def test_gpu_in_other_hands(two_gpus):
    assert devices.taken_by_others(0) is None
    assert devices.taken_by_others(1).startswith(
        'GPU 1 (NVIDIA X): 60 GiB of 80 GiB are taken already')


def test_a_run_may_take_the_whole_gpu_or_what_others_leave(two_gpus):
    """The whole, although a context takes some: a resumed run is to find the same."""
    assert devices.memory_for_run(0) == torch.cuda.mem_get_info(0)[1]
    assert devices.memory_for_run(1) == 20 * GIB

import pytest
import torch
import torch.distributed as dist

from mmseg_custom.distributed.failures import (
    explain_failure,
    explain_lost_rank,
    lost_rank,
)
from mmseg_custom.engine.cli import explain

FULL = ('CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB '
        'of which 10.12 GiB is free. {others}Including non-PyTorch memory, this process has '
        '{own} GiB memory in use. Of the allocated memory 60.00 GiB is allocated by PyTorch, and '
        '{spare} GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is '
        'large try setting ...\nSee documentation')
NCCL = ('NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, {kind}, NCCL '
        'version 2.27.5\n{kind}: more words.\nLast error:\n{last}')


def full(own: float = 68.5, spare: float = 0.5) -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError(FULL.format(own=own, spare=spare, others=''))


def test_no_memory_left():
    line = explain(full())
    assert line.startswith(
        'no memory left on GPU 0 (20 GiB were asked for, 10.1 GiB of 79.1 GiB are free, this '
        'process holds 68.5 GiB, others hold 502 MiB): `python tools/doctor.py CONFIG` says')
    assert 'data.samples_per_gpu=1' in line and 'with_cp=True' in line and 'nvidia-smi' not in line


def test_no_memory_left_beside_another_process():
    line = explain(full(own=30))
    assert 'others hold 39 GiB): end the other processes (nvidia-smi lists them), or' in line


def test_memory_in_pieces():
    line = explain(full(spare=12))
    assert '): 12 GiB of it are in pieces: set PYTORCH_CUDA_ALLOC_CONF=expandable_segments' in line


def test_message_of_another_form():
    line = explain_failure(torch.OutOfMemoryError('HIP out of memory. Try less.\nmore'))
    assert line.startswith('no memory left on GPU ? (HIP out of memory. Try less.): ')


@pytest.mark.parametrize('text, words', [
    ('CUDA error: out of memory\nCUDA kernel errors ...', 'no memory left on the GPU: '),
    ('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`', 'for cuBLAS'),
    ('CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`',
     'cuBLAS does not start; most often no memory'),
    ('GET was unable to find an engine to execute this computation', 'most often no memory'),
    ('FIND was unable to find an engine to execute this computation', 'cuDNN has no kernel'),
    ('CUDA error: no kernel image is available for execution on the device', 'not built for this'),
    ('CUDA error: CUDA-capable device(s) is/are busy or unavailable', 'held by another process'),
    ('CUDA error: uncorrectable ECC error encountered', 'take it out of service')])
def test_errors_of_cuda(text, words):
    line = explain(RuntimeError(text))
    assert words in line and '\n' not in line


def test_causes_are_found():
    try:
        try:
            raise full()
        except RuntimeError as error:
            raise ValueError('while evaluating') from error
    except ValueError as error:
        assert explain(error).startswith('no memory left on GPU 0')


def test_errors_of_the_program_keep_their_traceback():
    for error in (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), ValueError('x'),
                  RuntimeError('CUDA error: device-side assert triggered')):
        assert explain(error) is None


def test_failure_of_nccl_names_its_reason():
    """Its own failure was taken for that of another process, whose message does not exist."""
    error = dist.DistBackendError(NCCL.format(
        kind='ncclInvalidUsage', last='Duplicate GPU detected : rank 1 and rank 0'))
    assert not lost_rank(error)
    assert explain(error) == ('nccl failed: Duplicate GPU detected : rank 1 and rank 0; '
                              'NCCL_DEBUG=WARN in the environment prints more')


@pytest.mark.parametrize('error', [
    dist.DistBackendError(NCCL.format(kind='ncclRemoteError', last='socketProgress: Connection '
                                      'closed by remote peer n2<4242>')),
    dist.DistNetworkError('The client socket has timed out'),
    RuntimeError('[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by '
                 'peer [127.0.0.1]:4242')])
def test_lost_rank(error):
    assert lost_rank(error) and explain(error) is None
    assert explain_lost_rank(error).startswith('the connection to another process is lost')


def test_a_rank_that_does_not_answer():
    error = RuntimeError('[gloo/transport/tcp/unbound_buffer.cc:91] Timed out waiting 3600000ms '
                         'for recv operation to complete')
    assert lost_rank(error)
    assert explain_lost_rank(error).startswith(
        'another process has not answered for 60 minutes (dist_params.timeout_minutes)')

"""AdamW for trained weights that are stored in bfloat16 alone: at most half the bytes.

====================  =========  ==========  ==============  =====
bytes per weight      stored in  gradient    both moments    sum
====================  =========  ==========  ==============  =====
AdamW                 4          4           8               16
LowMemoryAdamW        2          2           4 (bf16)        8
                      2          2           2.03 (8bit)     6.03
====================  =========  ==========  ==============  =====

torchao's optimizers do the work: an update is computed in float32 and rounded up or down at random,
so that many small steps move a weight as far as they should on average, where rounding to the
nearest would undo each of them. 8-bit moments are quantised by blocks of 256 (Dettmers et al.,
"8-bit Optimizers via Block-wise Quantization", 2022).

The adapter fits torchao to mmcv and to checkpoints: learning rates are plain numbers, and moments
are float32 in a state dict, on the CPU: together they would take more of a GPU than the training.
Quantised moments are restored bit by bit on the number of processes that saved them; another number
has other blocks, which are quantised anew.

On a GPU torchao's step is compiled, which needs a C compiler (:mod:`..distributed.compiler`).
Eager, it would take 57 bytes of memory per weight of the largest tensor, and 18 times as long
(8-bit moments of 20 million weights, on two CPU cores).
"""
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmcv.runner import OPTIMIZERS
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ..checkpoint.lazy import LazyTensor
from ..errors import InputError
from ..shards import own_shard

NAME = 'LowMemoryAdamW'
STATES = ('8bit', 'bf16')


@OPTIMIZERS.register_module(NAME)
def low_memory_adamw(params: list, state: str = '8bit', lr: float = 1e-3,
                     betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                     weight_decay: float = 0.01, **options) -> Optimizer:
    """Builds the optimizer; the backbone's weights are stored in bfloat16 where a config names it.

    Args:
        params: Parameters or groups of them.
        state: Format of the moments of bfloat16 weights, '8bit' or 'bf16'; those of float32 weights
            (heads) are then in 8 bits or in float32.
        lr: Learning rate.
        betas: Decay rates of the two moments.
        eps: Number that is added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        **options: Further options of torchao's AdamW.

    Raises:
        InputError: If torchao is not installed, or ``state`` is neither.
    """
    if state not in STATES:
        raise InputError(f'optimizer.state={state!r}: expected one of {", ".join(STATES)}')
    try:
        from torchao import optim
    except ImportError as error:
        raise InputError(f'optimizer.type={NAME!r} needs torchao, which is not installed: pip '
                         "install torchao, or use optimizer.type='AdamW'") from error
    base = optim.AdamW8bit if state == '8bit' else optim._AdamW
    return type(NAME, (_TorchAOAdapter, base), {})(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bf16_stochastic_round=True,
        **options)


class _TorchAOAdapter(Optimizer):
    """Base class in front of torchao's optimizers that fits them to mmcv; see the module.

    Attributes:
        state_dict_device: Device of the tensors that a state dict is made of, and loaded from.
    """

    state_dict_device = 'cpu'
    _new_buffer: Callable[..., Tensor]  # method of torchao's optimizers

    def _subclass_zeros(self, p: Tensor, signed: bool, block_size: int) -> Tensor:
        """Gives quantised moments the dtype that their values have.

        torchao's show the parameter's, and lose it in a view (0.18): as parts of a sharded tensor
        they would then be of another dtype than the whole, which DTensor refuses.
        """
        zeros = super()._subclass_zeros(p, signed, block_size)  # type: ignore[misc]  # torchao's
        return zeros.float() if _is_quantised(zeros) else zeros

    def add_param_group(self, param_group: dict) -> None:
        """Keeps the learning rate a number, as mmcv's hooks expect."""
        rate = param_group.get('lr', self.defaults['lr'])
        super().add_param_group(param_group)
        self.param_groups[-1]['lr'] = rate

    def step(self, closure=None):
        """Takes a step; torchao reads learning rates as tensors."""
        rates = [group['lr'] for group in self.param_groups]
        for group in self.param_groups:
            group['lr'] = torch.tensor(group['lr'], dtype=torch.float32)
        try:
            with self._stance():
                return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates):
                group['lr'] = rate

    def _stance(self) -> AbstractContextManager:
        """Turns compilation off on the CPU: for each shape it takes longer than a tiny run."""
        on_cpu = self.param_groups[0]['params'][0].device.type == 'cpu'
        return torch.compiler.set_stance('force_eager') if on_cpu else nullcontext()

    def state_dict(self) -> dict:
        """Returns the state with float32 tensors on the CPU in the place of quantised ones."""
        return self._state_dict(_dequantised)

    def lazy_state_dict(self) -> dict:
        """Returns the same with lazy tensors, which are on the CPU while they are written."""
        return self._state_dict(_lazily_dequantised)

    def _state_dict(self, dequantise: Callable[[Tensor], object]) -> dict:
        content = super().state_dict()
        content['state'] = {
            index: {name: dequantise(value) if _is_quantised(value) else value
                    for name, value in values.items()}
            for index, values in content['state'].items()}
        return content

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads a state, and quantises the moments that are quantised here."""
        super().load_state_dict({**state_dict, 'state': {}})
        parameters = [p for group in self.param_groups for p in group['params']]
        for index, values in state_dict['state'].items():
            parameter, state = parameters[index], {}
            for name, value in values.items():
                if name == 'step':
                    state[name] = torch.tensor(float(value))
                    continue
                state[name] = self._new_buffer(parameter, signed=name == 'exp_avg')
                _restore(own_shard(state[name]), own_shard(value))
            self.state[parameter] = state


def _restore(state: Any, values: Tensor) -> None:
    """Copies values into a state so that those of a quantised one are restored exactly.

    torchao scales a block to a largest absolute value of 1, but has no code for -1: where the
    largest is negative, the scale was larger than the values say, by one over the lowest code.
    """
    values = values.to(state.device)
    state.copy_(values)
    if not _is_quantised(state):
        return
    from torchao.optim.quant_utils import quantize_8bit_with_qmap
    blocks = values.to(state.scale).view(len(state.scale), -1)
    plain = state.scale.clone()
    guess = blocks.abs().amax(-1) / state.qmap[0].abs().clip(min=1e-3)
    for scale in (guess, guess.nextafter(2 * guess), guess.nextafter(0 * guess), plain):
        wrong = (state.dequantize(torch.float32).view_as(blocks) != blocks).any(-1)
        state.scale.copy_(torch.where(wrong, scale, state.scale))
        codes = quantize_8bit_with_qmap(blocks / state.scale.clip(1e-12)[:, None], state.qmap)
        state.codes.copy_(torch.where(wrong[:, None], codes, state.codes.view_as(blocks))
                          .view_as(state.codes))


def _is_quantised(value: object) -> bool:
    from torchao.optim.subclass_8bit import OptimState8bit
    return isinstance(value, Tensor) and isinstance(own_shard(value), OptimState8bit)


def _dequantised(value: Tensor) -> Tensor:
    """Returns float32 values on the CPU; of a sharded tensor, this process's part is there."""
    whole = own_shard(value).dequantize(torch.float32)
    if isinstance(value, DTensor):
        whole = DTensor.from_local(whole, value.device_mesh, value.placements, run_check=False,
                                   shape=value.shape, stride=value.stride())
    return whole.cpu()


def _lazily_dequantised(value: Tensor) -> LazyTensor:
    return LazyTensor(tuple(value.shape), torch.float32, lambda: _dequantised(value))

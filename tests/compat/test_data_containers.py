"""Batches of mmcv in torch's loaders."""
import torch
from mmcv.parallel import DataContainer, collate
from torch.utils.data._utils.pin_memory import pin_memory

import mmseg_custom  # noqa: F401


def test_a_loader_pins_what_goes_to_the_device(monkeypatch):
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin)
    sample = dict(img=DataContainer(torch.ones(3, 4, 4), stack=True, padding_value=7),
                  boxes=DataContainer(torch.zeros(2, 4)),
                  feats=[DataContainer(torch.ones(5, 2, 2), stack=True)] * 2,
                  img_metas=DataContainer(dict(mask=torch.ones(3)), cpu_only=True))
    batch = pin_memory(collate([sample, sample], samples_per_gpu=2))
    found = [*batch['img'].data, *batch['boxes'].data[0],
             *(part for feats in batch['feats'] for part in feats.data)]
    assert [id(x) for x in found] == [id(x) for x in pinned] and len(found) == 5
    assert batch['img'].stack and batch['img'].padding_value == 7
    assert batch['img_metas'].cpu_only and len(batch['img_metas'].data[0]) == 2

"""Labels of a run with adapters, and of what they are merged into."""
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data import SMALL_LINEAR, write_config
from mmcv import Config
from PIL import Image

from mmseg_custom.checkpoint import save_checkpoint
from mmseg_custom.checkpoint.merge import merge
from mmseg_custom.engine.build import build_network, init_heads
from mmseg_custom.engine.frozen_dtype import check_head_fits
from mmseg_custom.engine.inference import Predictor
from mmseg_custom.engine.options import RunOptions
from mmseg_custom.engine.run import prepare_run
from mmseg_custom.errors import InputError
from mmseg_custom.layers.lora import is_adapter

ADAPT = dict(type='lora', r=4, alpha=8)


@pytest.fixture
def configs(tmp_path, shared_data) -> list[Config]:
    """Configs of a tiny linear head in float32, with adapters and without."""
    path = write_config(tmp_path / 'tiny.py', shared_data, extra=SMALL_LINEAR)
    found = [Config.fromfile(str(path)) for _ in range(2)]
    for cfg in found:
        cfg.precision = 'fp32'
    found[0].model.backbone.adapt = ADAPT
    return found


@pytest.fixture
def merged(configs, tmp_path) -> tuple[str, str]:
    """Checkpoint of a network with random adapters, and the merged one."""
    model = build_network(configs[0])
    init_heads(model)
    for name, parameter in model.named_parameters():
        if is_adapter(name) or 'conv_seg.weight' in name:
            torch.nn.init.normal_(parameter.data, std=0.2)
    paths = str(tmp_path / 'iter_1.pth'), str(tmp_path / 'full.pth')
    save_checkpoint(model, paths[0], None, dict(iter=1))
    merge(*paths)
    return paths


def test_labels_stay_in_float32(configs, merged, shared_data):
    folder = Path(shared_data) / 'images/validation'
    images = [np.asarray(Image.open(path)) for path in sorted(folder.glob('*.jpg'))[:2]]
    ours, theirs = ([Predictor(cfg, path, 'cpu')(image) for image in images]
                    for cfg, path in zip(configs, merged))
    equal = np.concatenate([(a == b).ravel() for a, b in zip(ours, theirs)])
    assert equal.mean() >= 0.9999 and len(np.unique(ours[0])) > 1


def test_merged_files_are_no_resume(merged, configs, tmp_path):
    configs[0].work_dir, configs[0].resume_from = str(tmp_path), merged[1]
    with pytest.raises(InputError, match='full.pth was merged, and holds neither adapters nor'):
        prepare_run(configs[0], RunOptions(device='cpu'))


def test_rounding_what_is_merged_is_a_warning(configs, merged, caplog):
    configs[1].model.backbone.update(frozen_dtype='int8', freeze_vit=True)
    check_head_fits(build_network(configs[1]), torch.load(merged[1])['meta'])
    assert "frozen_dtype='int8' rounds weights that adapters were merged into" in caplog.text

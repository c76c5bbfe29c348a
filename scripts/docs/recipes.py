"""Writes the tables of docs/recipes.md from the configs: python scripts/docs/recipes.py.

tests/docs/test_recipes.py fails where the page and the configs differ.
"""
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmcv import Config

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'recipes.md'
CONFIGS = ROOT / 'configs'
# Class of data.train -> data set, and its number of training images.
DATA = {
    'ADE20KDataset': ('ADE20K', 20210),
    'CityscapesDataset': ('Cityscapes', 2975),
    'COCOStuffDataset': ('COCO-Stuff 164k', 118287),
    'PascalContextDataset59': ('Pascal Context 59', 4998),
    'PascalVOCDataset': ('VOC 2012 aug', 10582),
}
DEMO_IMAGES = 160
# ADE20K val, single scale, as the authors of InternVL published it.
PUBLISHED = {'1of16': 46.5, '1of8': 50.0, '1of4': 53.3, '1of2': 55.8, '1of1': 57.2,
             'linear_probing': 47.2, 'head_tuning': 54.9, 'full_tuning': 58.9}
HEADS = {'FCNHead': 'linear', 'UPerHead': 'UperNet', 'PlainMaskHead': 'masks'}
TABLE = re.compile(r'(?P<begin><!-- recipes: (?P<name>.+?) -->\n).*?(?P<end>\n<!-- end -->)',
                   re.DOTALL)


def update(page: str, configs: Mapping[str, Config]) -> str:
    """Returns the page with the tables that follow from the configs, given by their paths."""
    return TABLE.sub(
        lambda match: f'{match["begin"]}\n{table(match["name"], configs)}{match["end"]}', page)


def table(name: str, configs: Mapping[str, Config]) -> str:
    """Returns the table of a group of configs.

    Args:
        name: Folder in `configs`, then in brackets the data: `intern_vit_6b (ADE20K)`, `(other)`
            or `(all)`. `(in part)` stands for recipes with adapters or last blocks, which the
            first two leave out.
        configs: Configs by their paths in `configs`.
    """
    folder, data = re.fullmatch(r'(\S+) \((.+)\)', name).groups()
    chosen = {path: cfg for path, cfg in configs.items()
              if path.startswith(f'{folder}/') and data in ('all', group(cfg))}
    published = folder == 'intern_vit_6b' and data == 'ADE20K'
    head = ['what is trained', 'head', 'data: training images', 'classes', 'crop', 'batch',
            'iterations', *['published mIoU'] * published, 'config']
    rows = sorted((row(path, cfg, published) for path, cfg in chosen.items()), key=order)
    lines = [head, ['---'] * len(head), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def group(cfg: Config) -> str:
    """Returns the table that a config belongs to: 'ADE20K', 'other' (data) or 'in part'."""
    if cfg.model.backbone.get('adapt') or cfg.model.backbone.get('train_last'):
        return 'in part'
    return 'ADE20K' if cfg.data.train.type == 'ADE20KDataset' else 'other'


def order(cells: list[str]) -> tuple:
    """Sorts configs by what is trained, then by iterations, then by name."""
    kinds = ('few_shot', 'linear_probing', 'head_tuning', 'full_tuning', 'lora', 'last_blocks',
             'plain_mask', 'eomt')
    kind = next(i for i, kind in enumerate(kinds) if f'`{kind}' in cells[-1])
    return kind, int(cells[6]), cells[-1]


def row(path: str, cfg: Config, published: bool) -> list[str]:
    """Returns the cells of a config."""
    model, data = cfg.model, cfg.data
    folder, name = PurePosixPath(path).parent.name, PurePosixPath(path).stem
    cells = [trained(model.backbone), head_of(model), images(data.train),
             str(model.decode_head.num_classes), str(cfg.crop_size[0]),
             batch(name, cfg), str(cfg.runner.max_iters)]
    if published:
        if model.backbone.get('frozen_dtype'):
            raise ValueError(f'{path}: the published mIoU is of frozen weights in bfloat16, not in '
                             f'{model.backbone.frozen_dtype}')
        key = name.rpartition('_')[2] if folder == 'few_shot' else folder
        cells.append(str(PUBLISHED.get(key, '')))
    return [*cells, f'[`{path.partition("/")[2]}`](../configs/{path})']


def trained(backbone: dict) -> str:
    """Returns what of the network is trained."""
    if backbone.get('adapt'):
        parts = ['adapters']
    elif backbone.get('train_last'):
        parts = [f'last {backbone.train_last} blocks']
    else:
        parts = [] if backbone.freeze_vit else ['backbone']
    parts += ['pyramid'] if backbone.get('with_fpn') else []
    return ', '.join([*parts, 'head'])


def head_of(model: dict) -> str:
    """Returns the head, as tables name it."""
    joins = model.decode_head.get('blocks') == 'backbone'
    return 'EoMT' if joins else HEADS[model.decode_head.type]


def images(train: dict) -> str:
    """Returns the data set, and how many of its images are trained on."""
    name, count = DATA[train.type]
    if 'ade_demo' in train.data_root:
        name, count = 'demo data', DEMO_IMAGES
    return f'{name}: {train.get("max_image_num") or count}'


def batch(name: str, cfg: Config) -> str:
    """Returns images a GPU times GPUs, or the whole batch where it is the same on any number."""
    if cfg.get('total_batch') and cfg.total_batch != cfg.data.samples_per_gpu:
        return f'{cfg.total_batch} in all'
    per_gpu = cfg.data.samples_per_gpu
    found = re.search(r'_bs(\d+)_', name)
    return f'{per_gpu} x {int(found[1]) // per_gpu}' if found else f'{per_gpu} x 1'


if __name__ == '__main__':
    read = {path.relative_to(CONFIGS).as_posix(): Config.fromfile(path, import_custom_modules=False)
            for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts}
    PAGE.write_text(update(PAGE.read_text('utf-8'), read), 'utf-8')

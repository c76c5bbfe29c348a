"""Writes the tables of docs/recipes.md and README.md from the configs.

    python scripts/docs/recipes.py

tests/docs/test_recipes.py fails where a page and the configs differ.
"""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from mmcv import Config, ConfigDict

from mmseg_custom.checkpoint.releases import HUB, RELEASES, Release

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'recipes.md'
README = ROOT / 'README.md'
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
# mIoU of single-scale tests, as the authors of InternVL published it: few-shot on ADE20K in the
# README of InternVL's segmentation folder, the others in Table 15 of the report on InternVL 2.5
# (Chen et al., arXiv 2412.05271), whose values of InternViT-6B-224px are those of that README.
FEW_SHOT = {'1of16': 46.5, '1of8': 50.0, '1of4': 53.3, '1of2': 55.8, '1of1': 57.2}
VIT_ADAPTER = 58.1  # of InternViT-6B-224px on ADE20K, in the README of InternVL-MMDetSeg
KINDS = ('linear_probing', 'head_tuning', 'full_tuning')
PUBLISHED = {
    'intern_vit_6b': {'ADE20K': (47.2, 54.9, 58.9), 'COCO-Stuff 164k': (42.8, 48.9, 51.6)},
    'intern_vit_6b_448px_v1_0': {
        'ADE20K': (43.6, 55.4, 58.1), 'COCO-Stuff 164k': (38.5, 49.4, 51.7)},
    'intern_vit_6b_448px_v1_2': {
        'ADE20K': (40.7, 55.2, 58.8), 'COCO-Stuff 164k': (36.1, 48.8, 51.7)},
    'intern_vit_6b_448px_v1_5': {
        'ADE20K': (40.9, 55.0, 58.8), 'COCO-Stuff 164k': (36.3, 49.1, 51.5)},
    'intern_vit_6b_448px_v2_5': {
        'ADE20K': (39.4, 55.4, 58.6), 'COCO-Stuff 164k': (35.6, 49.7, 51.8)},
}
HEADS = {'FCNHead': 'linear', 'UPerHead': 'UperNet', 'PlainMaskHead': 'plain masks'}
RELEASES_HEAD = ['release', 'weights', 'blocks', *(f'{data}: {kind}' for data in (
    'ADE20K', 'COCO-Stuff') for kind in ('linear', 'head', 'full'))]
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
            first two leave out. Or `releases`, for the table of all releases.
        configs: Configs by their paths in `configs`.
    """
    if name == 'releases':
        return lines([RELEASES_HEAD, *(release_row(release, configs) for release in RELEASES)])
    folder, data = re.fullmatch(r'(\S+) \((.+)\)', name).groups()
    chosen = {path: cfg for path, cfg in configs.items()
              if path.startswith(f'{folder}/') and data in ('all', group(cfg))
              and renamed(path) not in configs}
    published = folder in PUBLISHED and data != 'in part'
    head = ['what is trained', 'head', 'data: training images', 'classes', 'crop', 'batch',
            'iterations', *['published mIoU'] * published, 'config']
    rows = sorted((row(path, cfg, published) for path, cfg in chosen.items()), key=order)
    return lines([head, *rows])


def lines(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown; the first row is its head."""
    return ''.join(f'| {" | ".join(row)} |\n' for row in [rows[0], ['---'] * len(rows[0]),
                                                          *rows[1:]])


def renamed(path: str) -> str | None:
    """Returns the name of a recipe that has another one since 1.0.0; None for other recipes."""
    new = path.replace('_80k_coco_stuff164k_', '_80k_cocostuff164k_')
    return new if new != path else None


def release_row(release: Release, configs: Mapping[str, Config]) -> list[str]:
    """Returns the cells of a release: its weights, and mIoU that lead to the recipes."""
    cells = [f'[{release.name}]({HUB}/{release.name})', weights(release), str(release.depth)]
    for data, names in (('ADE20K', ['ade20k']),
                        ('COCO-Stuff 164k', ['cocostuff164k', 'coco_stuff164k'])):
        for kind in KINDS:
            path = next(path for name in names for path in configs
                        if path.startswith(f'{release.recipes}/{kind}/') and
                        f'_504_80k_{name}_' in path)
            cells.append(f'[{published_miou(path, data) or "recipe"}](configs/{path})')
    return cells


def weights(release: Release) -> str:
    """Returns what is downloaded of a release: a file, or the folder that its own link leads to."""
    address = f'{HUB}/InternVL/blob/main/{release.file}'
    return f'[`{release.file}`]({address})' if release.file else 'the folder'


def published_miou(path: str, data: str) -> str:
    """Returns the published mIoU of a recipe on a data set; empty where none was published."""
    folder, kind, name = PurePosixPath(path).with_suffix('').parts
    if kind == 'few_shot':
        return str(FEW_SHOT[name.rpartition('_')[2]])
    if kind == 'vit_adapter':
        return str(VIT_ADAPTER)
    values = PUBLISHED.get(folder, {}).get(data)
    return str(values[KINDS.index(kind)]) if values and kind in KINDS else ''


def group(cfg: Config) -> str:
    """Returns the table that a config belongs to: 'ADE20K', 'other' (data) or 'in part'."""
    if cfg.model.backbone.get('adapt') or cfg.model.backbone.get('train_last'):
        return 'in part'
    return 'ADE20K' if cfg.data.train.type == 'ADE20KDataset' else 'other'


def order(cells: list[str]) -> tuple:
    """Sorts configs by what is trained, then by iterations, then by name."""
    kinds = ('few_shot', 'linear_probing', 'head_tuning', 'full_tuning', 'lora', 'last_blocks',
             'plain_mask', 'eomt', 'vit_adapter', 'frozen_vit')
    kind = next(i for i, kind in enumerate(kinds) if f'`{kind}' in cells[-1])
    return kind, int(cells[6]), cells[-1]


def row(path: str, cfg: Config, published: bool) -> list[str]:
    """Returns the cells of a config."""
    model, data = cfg.model, cfg.data
    name = PurePosixPath(path).stem
    cells = [trained(model.backbone), head_of(model), images(data.train),
             str(model.decode_head.num_classes), str(cfg.crop_size[0]),
             batch(name, cfg), str(cfg.runner.max_iters)]
    if published:
        if model.backbone.get('frozen_dtype'):
            raise ValueError(f'{path}: the published mIoU is of frozen weights in bfloat16, not in '
                             f'{model.backbone.frozen_dtype}')
        cells.append(published_miou(path, DATA[data.train.type][0]))
    return [*cells, f'[`{path.partition("/")[2]}`](../configs/{path})']


def trained(backbone: ConfigDict) -> str:
    """Returns what of the network is trained."""
    if backbone.get('adapt'):
        parts = ['adapters']
    elif backbone.get('train_last'):
        parts = [f'last {backbone.train_last} blocks']
    else:
        frozen = backbone.type in ('FrozenViT', 'InternViTAdapter') or backbone.get('freeze_vit')
        parts = [] if frozen else ['backbone']
    parts += ['ViT-Adapter'] if backbone.type == 'InternViTAdapter' else []
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
    for page in (PAGE, README):
        page.write_text(update(page.read_text('utf-8'), read), 'utf-8')

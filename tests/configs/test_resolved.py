"""Every config resolves to the settings that are recorded in resolved.json.

Configs build on each other, so that a change in one file can change recipes that nobody looked at.
After an intended change, record the settings anew and read the difference:

    python tests/configs/test_resolved.py --write
    git diff tests/configs/resolved.json

To list the settings in which the configs of another checkout differ from the recorded ones:

    python tests/configs/test_resolved.py --compare OTHER/configs
"""
import argparse
import ast
import json
import re
from pathlib import Path

import pytest
from mmcv import Config

from mmseg_custom.engine.before_start import classes_by_config
from mmseg_custom.engine.config import crop_of

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
RECORD = Path(__file__).with_name('resolved.json')
# Values that configs pass on to the configs that build on them, and that no run reads.
HELPERS = {'backbone_300m', 'linear_300m', 'upernet_300m', 'model_448', 'backbone_tiny',
           'linear_tiny', 'upernet_tiny', 'plain_mask_tiny', 'masks_in_short', 'plain_mask_300m',
           'eomt_tiny', 'eomt_300m', 'test_cfg_tiny', 'train_pipeline_from_one', 'validation'}


def names(folder=CONFIGS):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.py'))


def resolve(path):
    """Returns the settings of a config, model and data by their parts: {'model.backbone': ...}."""
    cfg = Config.fromfile(path, import_custom_modules=False)._cfg_dict.to_dict()
    settings = {}
    for key, value in cfg.items():
        if key in ('model', 'data'):
            settings.update({f'{key}.{part}': in_order(item) for part, item in value.items()})
        elif key not in HELPERS:
            settings[key] = in_order(value)
    return settings


def in_order(value):
    """Copies nested values, the keys of dicts in alphabetical order."""
    if isinstance(value, dict):
        return {key: in_order(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return type(value)(map(in_order, value))
    return value


def recorded():
    """Reads resolved.json, in which each config lists the indices of its settings."""
    record = json.loads(RECORD.read_text())
    settings = [(key, ast.literal_eval(text)) for key, text in record['settings']]
    return {name: dict(settings[i] for i in indices)
            for name, indices in record['configs'].items()}


def write():
    """Writes resolved.json. Values are Python literals, since JSON has no tuples."""
    index, configs = {}, {}
    for name in names():
        settings = resolve(CONFIGS / name)
        configs[name] = [index.setdefault((key, repr(settings[key])), len(index))
                         for key in sorted(settings)]
    settings = ',\n'.join(json.dumps(setting) for setting in index)
    configs = ',\n'.join(f'{json.dumps(name)}: {json.dumps(indices, separators=(",", ":"))}'
                         for name, indices in configs.items())
    RECORD.write_text(f'{{"settings": [\n{settings}\n],\n"configs": {{\n{configs}\n}}}}\n')


def leaves(value, key=''):
    """Yields the innermost values with their dotted keys."""
    if not isinstance(value, (dict, list)) or key and not value:
        yield key, repr(value)
        return
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, f'{key}.{name}' if key else str(name))


def differences(found, expected):
    """Lists the settings that differ, each with both its values."""
    found, expected = dict(leaves(found)), dict(leaves(expected))
    return [f'{key} is {found.get(key, "not set")}, recorded as {expected.get(key, "not set")}'
            for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)]


@pytest.fixture(scope='module')
def record():
    return recorded()


def test_every_config_is_recorded(record):
    assert sorted(record) == names()


@pytest.mark.parametrize('name', names())
def test_settings_are_as_recorded(name, record):
    found = differences(resolve(CONFIGS / name), record[name])
    assert not found, f'{name}: {found[0]} ({len(found)} differ)'


def test_crop_and_classes_of_every_recipe(record):
    recipes = {name: settings for name, settings in record.items()
               if '/' in name and not name.startswith('_')}
    assert len(recipes) > 40
    for name, settings in recipes.items():
        model, data = ({key.removeprefix(f'{part}.'): value for key, value in settings.items()
                        if key.startswith(f'{part}.')} for part in ('model', 'data'))
        cfg = Config({**settings, 'model': model, 'data': data})
        classes, = classes_by_config(cfg.data.train)
        assert crop_of(cfg) == tuple(cfg.crop_size), name
        assert len(classes) == cfg.model.decode_head.num_classes, name


def test_pretrain_size_stands_where_the_original_has_it(record):
    """The backbone accepts the key and reads it nowhere."""
    having = {name for name, settings in record.items()
              if 'pretrain_size' in settings.get('model.backbone', {})}
    recipes = re.compile(r'intern_vit_6b\w*/.*/(linear|upernet)_')
    assert set(filter(recipes.match, record)) <= having


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--write', action='store_true')
    parser.add_argument('--compare', type=Path, metavar='FOLDER')
    args = parser.parse_args()
    if args.write:
        write()
    if args.compare:
        expected = recorded()
        known = set().union(*expected.values())  # the other checkout may have other helpers
        for name in names(args.compare):
            settings = resolve(args.compare / name)
            found = {key: value for key, value in settings.items() if key in known}
            for line in differences(found, expected.get(name, {})):
                print(f'{name}: {line}')


if __name__ == '__main__':
    main()

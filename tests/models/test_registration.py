import sys

import pytest
from mmseg.models import build_loss
from mmseg.models.builder import MODELS

from mmseg_custom import models
from mmseg_custom.models import registration


@pytest.mark.parametrize('name', models.__all__)
def test_configs_get_the_classes_of_this_package(name):
    assert MODELS.get(name) is getattr(models, name)
    assert getattr(models, name).__module__.startswith('mmseg_custom.models.')


def test_what_has_no_namesake_in_mmseg_is_never_replaced():
    for register in (registration.register_backbones, registration.register_segmentors):
        with pytest.raises(KeyError, match='already registered'):
            register()


def test_losses_of_configs_are_ours():
    assert type(build_loss(dict(type='DiceLoss'))) is models.DiceLoss


def test_unknown_names_are_no_attributes():
    assert not hasattr(models, 'nothing') and sys.modules['mmseg_custom'].models is models

"""``feature_cache=dict(dir=..., views=8, dtype='bf16', seed=0)`` of a config."""
from dataclasses import dataclass, fields

from ...errors import InputError, refuse_unknown
from ...feature_cache.layout import DTYPES


@dataclass(frozen=True)
class CacheSettings:
    """The cache that a run trains on.

    Attributes:
        dir: Folder of caches, of any number of configs and runs.
        views: Augmented crops of each image. A cache that holds more serves as well, and one that
            holds fewer is extended.
        dtype: Dtype of the stored feature maps: 'bf16', 'fp16' or 'fp32'.
        seed: Seed of the augmentation. It is not the run's, so that runs of all seeds share a
            cache. Where both are the same, the first ``views`` passes of a run see the very crops
            that it would see without a cache.
    """
    dir: str
    views: int = 8
    dtype: str = 'bf16'
    seed: int = 0

    @classmethod
    def of(cls, options: dict) -> 'CacheSettings':
        """Reads ``feature_cache`` of a config.

        Raises:
            InputError: For an unknown key or value, or without ``dir``.
        """
        options = dict(options)
        refuse_unknown('feature_cache', options, [field.name for field in fields(cls)])
        if not isinstance(options.get('dir'), str) or not options['dir']:
            raise InputError(f'feature_cache.dir={options.get("dir")!r}: expected a folder, on a '
                             'disk with room for the feature maps')
        settings = cls(**options)
        for name, least in (('views', 1), ('seed', 0)):
            value = getattr(settings, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f'feature_cache.{name}={value!r}: expected a whole number of '
                                 f'{least} or more')
        if settings.dtype not in DTYPES:
            raise InputError(f'feature_cache.dtype={settings.dtype!r}: expected one of '
                             f'{", ".join(DTYPES)}')
        return settings

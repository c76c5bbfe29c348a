"""``feature_cache=dict(dir=..., views=8, dtype='bf16', seed=0)`` of a config."""
from dataclasses import dataclass, fields

from ...errors import InputError, refuse_unknown
from ...feature_cache.layout import DTYPES


@dataclass(frozen=True)
class CacheSettings:
    """Settings of the cache that a run trains on.

    Attributes:
        dir: Folder that holds caches, of any number of configs and runs.
        views: Number of augmented crops of each image. A cache with more crops is used as it is;
            one with fewer is extended.
        dtype: Dtype of the stored feature maps: 'bf16', 'fp16' or 'fp32'.
        seed: Seed of the augmentation. It is separate from the run's seed, so that runs with
            different seeds share a cache. If both are equal, the first ``views`` passes of a run
            use the same crops as without a cache.
    """
    dir: str
    views: int = 8
    dtype: str = 'bf16'
    seed: int = 0

    @classmethod
    def of(cls, options: dict) -> 'CacheSettings':
        """Reads ``feature_cache`` of a config.

        Raises:
            InputError: If a key or value is unknown, or ``dir`` is missing.
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

"""``sweep=dict(lr=[...], weight_decay=[...], layers=[...], train_last=[...])`` of a config."""
from dataclasses import dataclass, field, fields

from ...choices import SWEPT_HEADS
from ...errors import InputError, refuse_unknown

# The last of them varies fastest.
VARIED = ('head', 'layers', 'train_last', 'r', 'alpha', 'lr', 'weight_decay')


@dataclass(frozen=True)
class SweepSettings:
    """Settings that a sweep varies; an empty list keeps the config's own value.

    Attributes:
        lr: Learning rates.
        weight_decay: Weight decays.
        layers: Indices of the blocks that heads read: one number for linear heads, four for
            UPerNet.
        head: 'linear' (batch norm and a 1x1 classifier), 'upernet' (feature pyramid and UPerNet).
        train_last: Numbers of last blocks that are trained.
        r: Ranks of the adapters of a backbone with LoRA.
        alpha: Numerators of their factor ``alpha / r``.
        models: Head -> config file with its model, for heads that are not the config's own;
            default: the file in ``_base_/models`` with a backbone of the same width.
        heads_at_once: Largest number of heads in a round; default: as many as fit in memory.
        batched: Whether linear heads that read the same layers are trained and evaluated
            together: see :mod:`.head_group`; default: ``engine.fast`` on a GPU, else False.
    """
    lr: list = field(default_factory=list)
    weight_decay: list = field(default_factory=list)
    layers: list = field(default_factory=list)
    head: list = field(default_factory=list)
    train_last: list = field(default_factory=list)
    r: list = field(default_factory=list)
    alpha: list = field(default_factory=list)
    models: dict = field(default_factory=dict)
    heads_at_once: int | None = None
    batched: bool | None = None

    @classmethod
    def of(cls, options: dict) -> 'SweepSettings':
        """Reads ``sweep`` of a config.

        Raises:
            InputError: If a key is unknown or a value is invalid.
        """
        known = [field.name for field in fields(cls)]
        refuse_unknown('sweep', options, known)
        lists = {name: _as_list(options.get(name)) for name in VARIED}
        lists['layers'] = [tuple(value) if isinstance(value, (list, tuple)) else value
                           for value in lists['layers']]
        if not isinstance(options.get('models') or {}, dict):
            raise InputError(f'sweep.models={options["models"]!r}: expected dict(HEAD=FILE)')
        settings = cls(**lists, models=dict(options.get('models') or {}),
                       heads_at_once=options.get('heads_at_once'), batched=options.get('batched'))
        settings._check()
        return settings

    def _check(self) -> None:
        if not any(getattr(self, name) for name in VARIED):
            raise InputError(f'sweep: nothing to vary: give {", ".join(VARIED[:-1])} or '
                             f'{VARIED[-1]} a list of values, e.g. --lr 1e-5 4e-5 1e-4')
        self._check_numbers()
        for value in self.layers:
            for block in value if isinstance(value, tuple) else (value,):
                if isinstance(block, bool) or not isinstance(block, int):
                    raise InputError(f'sweep.layers: {value!r}: expected numbers of blocks')
        for name in ('head', 'models'):
            for value in getattr(self, name):
                if value not in SWEPT_HEADS:
                    raise InputError(f'sweep.{name}: {value!r}: expected one of '
                                     f'{", ".join(SWEPT_HEADS)}')
        for name in VARIED:
            values = getattr(self, name)
            twice = [value for i, value in enumerate(values) if value in values[:i]]
            if twice:
                raise InputError(f'sweep.{name}: {twice[0]!r} is there twice')
        if self.heads_at_once is not None and (
                not isinstance(self.heads_at_once, int) or self.heads_at_once < 1):
            raise InputError(f'sweep.heads_at_once={self.heads_at_once!r}: expected 1 or more')
        if self.batched not in (None, True, False):
            raise InputError(f'sweep.batched={self.batched!r}: expected True, False, or None for '
                             'what engine.fast says on a GPU')

    def _check_numbers(self) -> None:
        for name, least in (('lr', 'more than 0'), ('weight_decay', '0 or more'),
                            ('alpha', 'more than 0')):
            for value in getattr(self, name):
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
                        0 < value < float('inf') or value == 0 and name == 'weight_decay'):
                    raise InputError(f'sweep.{name}: {value!r}: expected a number, {least}')
        for name in ('train_last', 'r'):
            for value in getattr(self, name):
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    raise InputError(f'sweep.{name}: {value!r}: expected a whole number of 1 or '
                                     'more')


def _as_list(value: object) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]

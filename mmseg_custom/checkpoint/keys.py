"""Names of InternViT's parameters: three dialects, translated both ways, and compared.

    native         blocks.3.attn.qkv.weight                  this package, the released .pth, timm
    remote_code    encoder.layers.3.attn.qkv.weight          InternViT's own code on the hub
    transformers   encoder.layer.3.attention.q_proj.weight   transformers' InternVLVisionModel

All three may stand under a prefix, inside of a segmentor or of a vision-language model. D is the
width of the network, N its number of patches.
"""
import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass

from ..errors import SHOWN, InputError, some_of
from ..layers.lora import is_adapter
from ..layers.quantized_linear import weight_of
from .adapter_record import MERGE

BACKBONE = 'backbone.'  # prefix of the names of a segmentor's backbone
PYRAMID = ('up1.', 'up2.', 'up3.', 'up4.')
# What is trained beside the transformer: a pyramid, or the parts of a ViT-Adapter.
BESIDE_TRUNK = (*PYRAMID, 'level_embed', 'spm.', 'interactions.', 'up.', 'norm1.', 'norm2.',
                'norm3.', 'norm4.')
# What a checkpoint may hold of a backbone that is frozen in part.
TRAINED = tuple(BACKBONE + part for part in ('blocks.', 'pos_embed', *BESIDE_TRUNK))
_NUMBER = '[0-9]{1,6}'  # of a block

# Trained beside the network for image-text contrast; the released .pth holds them.
CLIP_PROJECTOR = frozenset(
    [f'clip_projector.norm1_{x}.{kind}' for x in 'qkv' for kind in ('weight', 'bias')]
    + [f'clip_projector.cross_attn.{x}' for x in ('q_bias', 'k_bias', 'v_bias')]
    + [f'clip_projector.cross_attn.{x}.weight' for x in 'qkv']
    + [f'clip_projector.cross_attn.proj.{kind}' for kind in ('weight', 'bias')])


@dataclass(frozen=True)
class Dialect:
    """One way to name the parameters.

    Attributes:
        name: Name of the dialect.
        blocks: Prefix of the names in blocks, before the number of the block.
        stem: Native module or parameter -> its name here; three names for a split q, k, v.
        unused: Names of parameters after or beside the blocks, which no feature map needs.
    """
    name: str
    blocks: str
    stem: Mapping[str, str | tuple[str, str, str]]
    unused: frozenset = frozenset()

    @property
    def anchor(self) -> str:
        """Name by which a file in this dialect is recognised."""
        return self.stems('patch_embed.proj')[0] + '.weight'

    def stems(self, native: str) -> tuple[str, ...]:
        """Returns the names here of a native module or parameter: one, or three for q, k and v."""
        names = self.stem[native]
        return (names,) if isinstance(names, str) else names

    def translate(self, native: str) -> tuple[str, ...]:
        """Returns the names here of a native name: one, or three that are to be joined."""
        head, block, rest = _split_block(native, 'blocks.')
        stem, kind = _split_kind(rest)
        if stem not in self.stem:
            raise KeyError(native)
        head = f'{self.blocks}{block}.' if block is not None else head
        return tuple(head + name + kind for name in self.stems(stem))


NATIVE = Dialect('native', 'blocks.', {name: name for name in (
    'pos_embed', 'cls_token', 'patch_embed.proj', 'norm1', 'attn.qkv', 'attn.proj', 'attn.q_norm',
    'attn.k_norm', 'ls1.gamma', 'norm2', 'mlp.fc1', 'mlp.fc2', 'ls2.gamma')},
    unused=CLIP_PROJECTOR)
REMOTE_CODE = Dialect('remote_code', 'encoder.layers.', {
    **NATIVE.stem, 'pos_embed': 'embeddings.position_embedding',
    'cls_token': 'embeddings.class_embedding', 'patch_embed.proj': 'embeddings.patch_embedding',
    'ls1.gamma': 'ls1', 'ls2.gamma': 'ls2'})
TRANSFORMERS = Dialect('transformers', 'encoder.layer.', {
    'pos_embed': 'embeddings.position_embeddings', 'cls_token': 'embeddings.cls_token',
    'patch_embed.proj': 'embeddings.patch_embeddings.projection',
    'norm1': 'layernorm_before', 'norm2': 'layernorm_after',
    'attn.qkv': ('attention.q_proj', 'attention.k_proj', 'attention.v_proj'),
    'attn.proj': 'attention.projection_layer',
    'attn.q_norm': 'attention.q_norm', 'attn.k_norm': 'attention.k_norm',
    'mlp.fc1': 'mlp.fc1', 'mlp.fc2': 'mlp.fc2', 'ls1.gamma': 'lambda_1', 'ls2.gamma': 'lambda_2'},
    unused=frozenset(['layernorm.weight', 'layernorm.bias', 'embeddings.mask_token']))
DIALECTS = (NATIVE, REMOTE_CODE, TRANSFORMERS)

# Of the tensors that are no vectors.
_DIMENSIONS = {'pos_embed': 3, 'cls_token': 3, 'patch_embed.proj.weight': 4, 'attn.qkv.weight': 2,
               'attn.proj.weight': 2, 'mlp.fc1.weight': 2, 'mlp.fc2.weight': 2}


def find_network(names: Iterable[str], path: str) -> tuple[Dialect, str]:
    """Finds InternViT among the names of a file.

    Args:
        names: Names of all tensors in the file.
        path: Name of the file, for messages.

    Returns:
        (dialect, prefix): the prefix is '' or ends with a dot.

    Raises:
        InputError: If the network is missing, or there twice.
    """
    names = list(names)
    found = [(dialect, name[:-len(dialect.anchor)]) for name in names for dialect in DIALECTS
             if name == dialect.anchor or name.endswith('.' + dialect.anchor)]
    if len(found) == 1:
        return found[0]
    if found:
        where = ', '.join(repr(prefix) for _, prefix in found)
        raise InputError(f'{path} holds more than one vision transformer (under {where}): keep '
                         'one of them in the file')
    if any(name.startswith('decode_head.') for name in names) and not any(
            name.startswith(BACKBONE) and not name.startswith(TRAINED) for name in names):
        raise InputError(f'{path} is the checkpoint of a segmentor without its backbone, '
                         f'which was frozen, all or in part: merge the two first ({MERGE} {path} '
                         'merged.pth), and give merged.pth')
    anchors = ', '.join(dialect.anchor for dialect in DIALECTS)
    raise InputError(f'{path} is not an InternViT: none of its {len(names)} tensors is a patch '
                     f'embedding ({anchors}); it holds {summarize(names)}')


def to_native(dialect: Dialect, names: Iterable[str]) -> tuple[dict[str, tuple[str, ...]],
                                                               list[str]]:
    """Translates the names of a network (without their prefix) to native ones.

    Returns:
        (sources, unknown): native name -> the one name that it comes from, or the three whose
        tensors are joined along their first axis; and names that are none of the dialect's.
    """
    names = set(names)
    back = {part: (native, dialect.stems(native)) for native in dialect.stem
            for part in dialect.stems(native)}
    sources, unknown = {}, []
    for name in sorted(names, key=natural_key):
        head, block, rest = _split_block(name, dialect.blocks)
        stem, kind = _split_kind(rest)
        native, parts = back.get(stem, (None, ()))
        wanted = tuple(f'{head}{part}{kind}' for part in parts)
        in_block = native is not None and native.startswith(('norm', 'attn', 'ls', 'mlp'))
        if native is None or in_block != (block is not None) or not names.issuperset(wanted):
            unknown.append(name)
        else:
            head = f'blocks.{block}.' if block is not None else ''
            sources[head + native + kind] = wanted
    return sources, unknown


def check_dimensions(shapes: Mapping[str, tuple[int, ...]], path: str) -> None:
    """Checks the number of dimensions of a network's tensors.

    Args:
        shapes: Native name -> shape.
        path: Name of the file, for messages.

    Raises:
        InputError: Naming the first tensor that has another number.
    """
    for name, shape in shapes.items():
        if name.startswith(BESIDE_TRUNK):
            continue
        matrix = weight_of(name) != name or is_adapter(name) and 'lora_magnitude' not in name
        wanted = 2 if matrix else _DIMENSIONS.get(_split_block(name, 'blocks.')[2], 1)
        if len(shape) != wanted or 0 in shape:
            raise InputError(f'{path}: {name} has shape {tuple(shape)}: expected {wanted} '
                             f'dimension{"s" * (wanted > 1)}')


@dataclass(frozen=True)
class Architecture:
    """Options of the backbone that shapes and names of its weights show."""
    embed_dim: int
    depth: int
    patch_size: int
    in_chans: int
    mlp_ratio: float
    qkv_bias: bool
    qk_normalization: bool
    norm_type: str
    layer_scale: bool

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> 'Architecture':
        """Derives the options from native names and their shapes."""
        width, channels, patch = shapes['patch_embed.proj.weight'][:3]
        blocks = {_split_block(name, 'blocks.')[1] for name in shapes} - {None}
        hidden = shapes.get('blocks.0.mlp.fc1.weight', (0,))[0]
        return cls(
            embed_dim=width, depth=len(blocks), patch_size=patch, in_chans=channels,
            mlp_ratio=hidden / width, qkv_bias='blocks.0.attn.qkv.bias' in shapes,
            qk_normalization='blocks.0.attn.q_norm.weight' in shapes,
            norm_type='layer_norm' if 'blocks.0.norm1.bias' in shapes else 'rms_norm',
            layer_scale='blocks.0.ls1.gamma' in shapes)

    def differences(self, other: 'Architecture') -> dict[str, tuple]:
        """Returns option -> (here, there), where they differ."""
        theirs = asdict(other)
        return {name: (mine, theirs[name]) for name, mine in asdict(self).items()
                if mine != theirs[name]}


def describe_mismatch(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """Describes names that do not match in a line, the first with the nearest of the other list.

    Names that differ in their block number alone count as one.
    """
    missing, unexpected = _fold(missing), _fold(unexpected)
    parts = []
    for title, names, others in (('missing', missing, unexpected),
                                 ('unexpected', unexpected, missing)):
        if names:
            first = [_with_nearest(name, blocks, others)
                     for name, blocks in list(names.items())[:SHOWN]]
            parts.append(f'{title}: {some_of([*first, *list(names)[SHOWN:]])}')
    return '; '.join(parts)


def summarize(names: Iterable[str]) -> str:
    """Counts names by their beginnings: '3 x decode_head., 2 x auxiliary_head.'."""
    counts: dict[str, int] = {}
    for name in names:
        first = name.split('.')[0] + ('.*' if '.' in name else '')
        counts[first] = counts.get(first, 0) + 1
    shown = [f'{count} x {first}' for first, count in list(counts.items())[:8]]
    return ', '.join(shown + ['...'] * (len(counts) > 8))


def block_of(name: str) -> int | None:
    """Returns the number of the block that a native name belongs to; None for other names."""
    number = _split_block(name, 'blocks.')[1]
    return None if number is None else int(number)


def is_part(name: str, parts: Collection[str]) -> bool:
    """Whether a parameter is one of some parts, or belongs to one: 'decode_head' has all of it."""
    pieces = name.split('.')
    return any('.'.join(pieces[:count]) in parts for count in range(1, len(pieces) + 1))


def natural_key(name: str) -> list:
    """Returns a key that sorts blocks.10 after blocks.9."""
    return [(1, int(part), '') if re.fullmatch(_NUMBER, part) else (0, 0, part)
            for part in name.split('.')]


def _fold(names: Iterable[str]) -> dict[str, list[int]]:
    """Joins the names that differ in their block number alone: pattern -> block numbers."""
    folded: dict[str, list[int]] = {}
    for name in sorted(names, key=natural_key):
        pattern = re.sub(r'(^|\.)(blocks|layers?)\.' + _NUMBER + r'\.', r'\1\2.*.', name)
        number = re.search(rf'(?:^|\.)(?:blocks|layers?)\.({_NUMBER})\.', name)
        folded.setdefault(pattern, []).extend([int(number.group(1))] if number else [])
    return folded


def _with_nearest(pattern: str, blocks: list[int], others: Iterable[str]) -> str:
    text = pattern
    if len(blocks) == 1:
        text = pattern.replace('.*.', f'.{blocks[0]}.', 1) if '.*.' in pattern else pattern
    elif blocks:
        text += f' ({len(blocks)} blocks, {min(blocks)} to {max(blocks)})'
    near = difflib.get_close_matches(pattern, list(others), n=1)
    return text + (f' (nearest: {near[0]})' if near else '')


def _split_block(name: str, blocks: str) -> tuple[str, str | None, str]:
    """'blocks.3.norm1.weight' -> ('blocks.3.', '3', 'norm1.weight'); ('', None, name) if none."""
    found = re.match(rf'{re.escape(blocks)}({_NUMBER})\.', name)
    return (found.group(), found.group(1), name[found.end():]) if found else ('', None, name)


def _split_kind(name: str) -> tuple[str, str]:
    """'norm1.weight' -> ('norm1', '.weight'); 'ls1.gamma' -> ('ls1.gamma', '')."""
    for kind in ('.weight', '.bias'):
        if name.endswith(kind):
            return name[:-len(kind)], kind
    return name, ''

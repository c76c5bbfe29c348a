"""The published releases of InternViT: their files, their sizes, and the recipes that take them.

What this table says is used where a file is missing, or does not fit a network.
"""
import os
import re
from dataclasses import dataclass

HUB = 'https://huggingface.co/OpenGVLab'
FOLDER = 'pretrained'  # where the recipes look for weights


@dataclass(frozen=True)
class Release:
    """A release of InternViT by OpenGVLab.

    Attributes:
        name: Name of its repository on the Hugging Face hub.
        embed_dim: Width D.
        depth: Number of blocks in its file.
        recipes: Folder of the recipes that start from it, in `configs`.
        file: Name of its .pth in the repository `OpenGVLab/InternVL`; '' for a release whose own
            repository is downloaded as a folder.
    """
    name: str
    embed_dim: int
    depth: int
    recipes: str
    file: str = ''

    @property
    def path(self) -> str:
        """Path at which the recipes look for it."""
        return f'{FOLDER}/{self.file or self.name}'

    @property
    def download(self) -> str:
        """Command that downloads it to there."""
        if self.file:
            return f'wget -P {FOLDER} {HUB}/InternVL/resolve/main/{self.file}'
        return f'hf download OpenGVLab/{self.name} --local-dir {self.path}'


RELEASES = (
    Release('InternViT-6B-224px', 3200, 48, 'intern_vit_6b', 'intern_vit_6b_224px.pth'),
    *(Release(f'InternViT-6B-448px-{name}', 3200, depth, f'intern_vit_6b_448px_{version}',
              f'intern_vit_6b_448px_{version}.pth')
      for name, version, depth in (('V1-0', 'v1_0', 48), ('V1-2', 'v1_2', 45),
                                   ('V1-5', 'v1_5', 45), ('V2_5', 'v2_5', 45))),
    Release('InternViT-300M-448px', 1024, 24, 'intern_vit_300m'),
    Release('InternViT-300M-448px-V2_5', 1024, 24, 'intern_vit_300m_448px_v2_5'))


def release_of(path: str) -> Release | None:
    """Finds the release that a file or folder is named after: as a .pth, or as on the hub."""
    name = os.path.basename(os.path.normpath(path))
    wanted = _letters(re.sub(r'\.(pth|pt|bin|safetensors)$', '', name))
    return next((release for release in RELEASES if wanted == _letters(release.name)), None)


def releases_of_size(embed_dim: int, depth: int) -> list[Release]:
    """Lists the releases of a size, in order of publication."""
    return [release for release in RELEASES
            if (release.embed_dim, release.depth) == (embed_dim, depth)]


def download_advice(path: str) -> str:
    """Says how to download a missing file or folder, as the rest of a sentence."""
    release = release_of(path)
    if release is None:
        return f'download it (docs/recipes.md lists the releases of {HUB})'
    whole = f', or the folder {HUB}/{release.name}' if release.file else ''
    return f'download it (`{release.download}`{whole})'


def describe_releases(path: str, embed_dim: int, depth: int) -> str:
    """Names the releases that a file may be, by its name or else by its size, with their recipes.

    Returns:
        'InternViT-6B-448px-V2_5 (configs/intern_vit_6b_448px_v2_5)'; '' if no release is like it.
    """
    found, named = releases_of_size(embed_dim, depth), release_of(path)
    return ' or '.join(f'{release.name} (configs/{release.recipes})'
                       for release in ([named] if named in found else found))


def _letters(name: str) -> str:
    """Reduces a name to letters and digits: InternViT-6B-448px-V2_5 -> internvit6b448pxv25."""
    return re.sub('[^a-z0-9]', '', name.lower())

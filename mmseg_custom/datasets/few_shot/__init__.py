"""Which images a few-shot run sees: fixed lists, the same for everyone.

Half of ADE20K's training names in a fixed order, for each of five seeds: 1/16 is the first 1263 of
them, 1/8 the first 2526, 1/4 the first 5052 and 1/2 all 10105, so that each is part of the next.
``hashes.json`` holds the SHA-256 of each list, which the log of a run and its checkpoints hold too.
``python tools/few_shot.py write`` writes the lists as files, one name a line:
``head -n 1263 ade20k_seed0.txt | sha256sum`` prints that hash. Such a head is also what mmseg's
``split=`` reads.
"""
from .choose import FewShotList, choose, read_options
from .lists import FRACTIONS, SEEDS, list_hash, published

__all__ = ['FRACTIONS', 'SEEDS', 'FewShotList', 'choose', 'list_hash', 'published',
           'read_options']

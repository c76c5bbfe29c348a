"""Which images a few-shot run sees: fixed lists, the same for everyone.

    ade20k_seed0.txt .. ade20k_seed4.txt   half of ADE20K's training names, in the order in which
                                           they are taken; one a line
    hashes.json                            SHA-256 of the lists in them

The list of 1/16 is the first 1263 lines of a file, 1/8 the first 2526, 1/4 the first 5052 and 1/2
all 10105: each is part of the next. `head -n 1263 ade20k_seed0.txt | sha256sum` is the hash that
the log of a run, its checkpoints and hashes.json hold. Such a head is also what mmseg's `split=`
reads.
"""
from .choose import FewShotList, choose, settle
from .lists import FRACTIONS, SEEDS, generate, list_hash, published

__all__ = ['FRACTIONS', 'SEEDS', 'FewShotList', 'choose', 'generate', 'list_hash', 'published',
           'settle']

"""The cache of facts about large files, in the user's cache folder."""
import os
import time

from mmseg_custom.checkpoint import user_cache
from mmseg_custom.checkpoint.user_cache import read_cache, write_cache


def test_what_a_kill_left_is_removed_when_no_process_can_be_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(user_cache, 'cache_folder', lambda: str(tmp_path))
    old, new = tmp_path / 'sums.json.1.part', tmp_path / 'sums.json.2.part'
    for part in (old, new):
        part.write_text('{')
    os.utime(old, (time.time() - 7200,) * 2)
    write_cache('sums.json', dict(a='1'))
    write_cache('sums.json', dict(b='2'))
    assert read_cache('sums.json') == dict(a='1', b='2')
    assert not old.exists() and new.exists()

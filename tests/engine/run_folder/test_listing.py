"""What the files of a work dir are."""
from mmseg_custom.engine.run_folder.listing import Checkpoints, list_files


def test_newest_best_and_older_checkpoints(tmp_path):
    for name in ('iter_9.pth', 'iter_10.dcp/x', 'iter_100.pth', 'best_mIoU_iter_9.pth',
                 'best_mIoU_iter_100.dcp/x', 'iter_7.pth.part', 'notes.txt', '.lock', 'config.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(1000))
    (tmp_path / 'latest.pth').symlink_to('iter_100.pth')
    found = Checkpoints.of(str(tmp_path))
    assert found.newest == str(tmp_path / 'iter_100.pth')
    assert found.best == found.chosen == str(tmp_path / 'best_mIoU_iter_100.dcp')
    rows = {name: (size, what) for name, size, what in list_files(str(tmp_path), 'config.py')}
    assert rows['iter_9.pth .. iter_10.dcp'] == ('2 kB', '2 older checkpoint(s)')
    assert rows['latest.pth'] == ('', 'link to iter_100.pth') and 'notes.txt' not in rows
    assert rows['iter_100.pth'][0] == '1 kB' and '.lock' in rows and 'config.py' in rows
    assert Checkpoints.of(str(tmp_path / 'missing')) == Checkpoints(None, None, [])

"""Comparisons of graphs with their networks."""
import pytest
import torch
from helpers.window_networks import window_network

from mmseg_custom.deploy.agreement import check_windows, compare
from mmseg_custom.deploy.program import check_size
from mmseg_custom.errors import InputError


def test_what_computes_the_same_agrees_and_what_does_not_is_refused():
    network = window_network('linear')
    windows = check_windows(network, (56, 84))
    with torch.no_grad():
        expected = [network(batch) for batch in windows]
        found = compare(expected, network, windows)
        assert (found.difference, found.equal) == (0, 1) and found.largest > 0
        found.check(torch.float32, 'it')
        doubled = compare(expected, lambda batch: 2 * network(batch), windows)
    assert doubled.difference == doubled.largest and doubled.equal == 1
    with pytest.raises(InputError, match='it does not compute what PyTorch does in float32'):
        doubled.check(torch.float32, 'it')
    broken = compare(expected, lambda batch: network(batch) * float('nan'), windows)
    with pytest.raises(InputError, match='differ by nan'):
        broken.check(torch.float16, 'it')


def test_logits_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r'logits \(1, 3, 2\).*expected \(1, 5, 4, 6\)'):
        compare([torch.zeros(1, 5, 4, 6)], lambda batch: torch.zeros(1, 3, 2),
                [torch.zeros(1, 3, 56, 84)])


def test_windows_are_of_several_sizes_and_numbers():
    network = window_network('linear')
    shapes = [tuple(batch.shape) for batch in check_windows(network, (56, 84))]
    assert len({shape[0] for shape in shapes}) == len({shape[2:] for shape in shapes}) == 3


@pytest.mark.parametrize('size', [(56, 80), (42, 84)])
def test_sizes_of_windows_that_do_not_fit_are_refused(size):
    with pytest.raises(InputError, match='expected multiples of 14 pixels from 56 on'):
        check_size(window_network('linear'), size)

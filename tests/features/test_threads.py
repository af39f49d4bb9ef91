"""Batches shared by threads: the same numbers, and every picture decoded once."""

from collections import Counter

import pytest
import torch
from torch import nn

from longtail.data import picture_loader
from longtail.data.images import CPU_PICTURES
from longtail.data.picture_loader import PictureFiles
from longtail.features.extract import Extractor
from longtail.features.threads import in_order
from longtail.settings.data import Pictures
from tests.odd_pictures import class_folders


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_batches(threads):
    batches = [torch.full((1,), number) for number in range(23)]
    before = torch.get_num_threads()
    assert [int(found) for found in in_order(lambda batch: batch * 2, batches, threads)] == list(
        range(0, 46, 2)
    )
    assert torch.get_num_threads() == before


def test_what_goes_wrong_in_a_thread_is_said():
    def work(batch: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"batch {int(batch)}")

    with pytest.raises(ValueError, match="batch 0"):
        list(in_order(work, [torch.zeros(1)] * 4, 2))


class Small(nn.Module):
    """Enough layers for a difference to show."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
        self.head = nn.Linear(16, 4)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Averages."""
        return self.trunk(images).mean(dim=(2, 3))


def test_features_do_not_depend_on_the_number_of_threads_and_a_picture_is_read_once(tmp_path, monkeypatch):
    class_folders(tmp_path, {"cat": CPU_PICTURES * 2 + 5})
    names = [f"cat/{number:03d}.jpg" for number in range(CPU_PICTURES * 2 + 5)]
    images = PictureFiles(tmp_path, names, Pictures(size=24), torch.arange(len(names)))
    torch.manual_seed(0)
    extract = Extractor(Small(), (0.5,) * 3, (0.5,) * 3, torch.device("cpu"), "float32")
    read: Counter[str] = Counter()
    decode = picture_loader.square

    def counted(file, *rest):
        read[file.name] += 1
        return decode(file, *rest)

    monkeypatch.setattr(picture_loader, "square", counted)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            read.clear()
            found.append(extract(images))
            assert set(read.values()) == {1}
            assert len(read) == len(names)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])

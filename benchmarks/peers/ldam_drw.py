"""Stage one in the shape of LDAM-DRW's script (Cao et al. 2019), from which most of the field's code grew.

float32, NCHW, pictures as PIL images one by one through torchvision's transforms in DataLoader workers that
start anew every epoch, `loss.item()` and top-k accuracies at every step, all 10,000 test images at batch 100
after every epoch.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import data

WORKERS = 4
EVALUATION_BATCH = 100


class Block(nn.Module):
    """Two 3 x 3 convolutions with option A's shortcut."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.padding = stride, (planes - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x)


class ResNet32(nn.Module):
    """ResNet-32 with widths 16, 32, 64."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        shapes = [(16, 16, 1)] * 5 + [(16, 32, 2)] + [(32, 32, 1)] * 4 + [(32, 64, 2)] + [(64, 64, 1)] * 4
        self.blocks = nn.Sequential(*(Block(*shape) for shape in shapes))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.head(F.avg_pool2d(x, x.shape[3]).flatten(1))
        return logits


class Pictures(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR does it: an array, a PIL image of each picture, the transform."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.array = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels: list[int] = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.array[index])), self.labels[index]


class Cutout:
    """A square hole of zeros in a tensor image (DeVries and Taylor 2017)."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        mask = torch.ones(height, width)
        half = self.side // 2
        mask[max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return image * mask


def transform(kind: str) -> Callable[[Image.Image], Tensor]:
    """LDAM-DRW's "crop_flip", Balanced Meta-Softmax's "full" with AutoAugment and Cutout, or "test"."""
    steps: list[object] = []
    if kind != "test":
        steps += [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    if kind == "full":
        policy = transforms.AutoAugmentPolicy.CIFAR10
        steps.append(transforms.AutoAugment(policy, fill=[128, 128, 128]))
    steps.append(transforms.ToTensor())
    if kind == "full":
        steps.append(Cutout(16))
    return transforms.Compose([*steps, transforms.Normalize(data.MEAN, data.STD)])  # type: ignore[no-any-return]


class Script:
    """The script's loops; a side of a comparison calls them.

    Args:
        training, test: how many images there are.
        workers: of each DataLoader.
        device: "cpu" or "cuda".
        batch: images a step.
        augmentation: see `transform`.
    """

    def __init__(
        self,
        training: int,
        test: int,
        *,
        workers: int = 0,
        device: str = "cpu",
        batch: int = 128,
        augmentation: str = "crop_flip",
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.network: nn.Module = ResNet32(data.CLASSES).to(self.device)
        if device == "cuda":
            self.network = nn.DataParallel(self.network)
            torch.backends.cudnn.benchmark = True  # as the script sets it
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)

        def loader(number: int, kind: str, batch: int) -> "DataLoader[tuple[Tensor, int]]":
            labels = torch.arange(number) % data.CLASSES
            return DataLoader(
                Pictures(data.images(number), labels, transform(kind)),
                batch_size=batch,
                shuffle=kind != "test",
                num_workers=workers,
                pin_memory=device == "cuda",
            )

        self.training, self.test = (
            loader(training, augmentation, batch),
            loader(test, "test", EVALUATION_BATCH),
        )

    def train(self) -> float:
        """An epoch; its mean loss."""
        self.network.train()
        losses, right = [], 0.0
        for images, labels in self._batches(self.training):
            logits = self.network(images)
            loss = F.cross_entropy(logits, labels)
            losses.append(loss.item())
            right += _right(logits, labels)
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
        return sum(losses) / len(losses)

    def evaluate(self) -> float:
        """The test images; the accuracy."""
        self.network.eval()
        right = 0.0
        with torch.no_grad():
            for images, labels in self._batches(self.test):
                logits = self.network(images)
                F.cross_entropy(logits, labels).item()
                right += _right(logits, labels)
        return right

    def _batches(self, loader: "DataLoader[tuple[Tensor, int]]") -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def _right(logits: Tensor, labels: Tensor) -> float:
    found = logits.topk(5, 1).indices == labels[:, None]
    top1, top5 = found[:, :1].sum().item(), found.sum().item()
    return float(top1 + 0 * top5)

"""Networks that no package has, written with PyTorch from their papers and given the names of
the repositories that published weights of them. For scripts/golden_logits.py.
"""

import torch
from torch import Tensor, nn


def conv(before: int, features: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Without a bias, padded by half its kernel."""
    return nn.Conv2d(before, features, kernel_size, stride, kernel_size // 2, bias=False)


class ResNet(nn.Module):
    """He et al. 2015, section 4.2, with the names of akamaster/pytorch_resnet_cifar10.

    Shortcuts are option A of the paper: every other pixel, and channels of zeros, which that
    repository adds half before and half behind. Its files come from `nn.DataParallel`.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        before = 16
        for stage, features in enumerate((16, 32, 64), start=1):
            blocks = []
            for _ in range((depth - 2) // 6):
                blocks.append(ResNetBlock(before, features))
                before = features
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class ResNetBlock(nn.Module):
    """Two convolutions; the first of a wider stage halves the resolution."""

    def __init__(self, before: int, features: int) -> None:
        super().__init__()
        self.gained = features - before
        self.conv1 = conv(before, features, 3, stride=2 if self.gained else 1)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2, self.bn2 = conv(features, features, 3), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.gained:
            half = self.gained // 2
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return (x + y).relu()


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, table 1, with the names of xternalz/WideResNet-pytorch."""

    def __init__(self, depth: int, widen_factor: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = conv(3, 16, 3)
        before = 16
        for number, stage_features in enumerate((16, 32, 64), start=1):
            features, stage = stage_features * widen_factor, nn.Module()
            strides = [1 if number == 1 else 2, *[1] * ((depth - 4) // 6 - 1)]
            blocks = []
            for stride in strides:
                blocks.append(WideResNetBlock(before, features, stride))
                before = features
            stage.layer = nn.Sequential(*blocks)
            self.add_module(f"block{number}", stage)
        self.bn1, self.fc = nn.BatchNorm2d(before), nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in (self.block1, self.block2, self.block3):
            x = stage.layer(x)
        return self.fc(self.bn1(x).relu().mean((2, 3)))


class WideResNetBlock(nn.Module):
    """Norm, rectifier, convolution, twice; a shortcut that changes shape sees the activation."""

    def __init__(self, before: int, features: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, features, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(features), conv(features, features, 3)
        if before != features:
            self.convShortcut = conv(before, features, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.bn1(x).relu()
        y = self.conv2(self.bn2(self.conv1(activated)).relu())
        return y + (self.convShortcut(activated) if hasattr(self, "convShortcut") else x)


def resnet20(num_classes: int) -> nn.Module:
    """As akamaster saves it, every name behind "module."."""
    return torch.nn.DataParallel(ResNet(20, num_classes))


def wrn28_4(num_classes: int) -> nn.Module:
    """WRN-28-4."""
    return WideResNet(28, 4, num_classes)

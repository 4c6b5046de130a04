"""Metric networks in plain PyTorch with the key names of the published files, and random weights for them."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


def pad_same(x: torch.Tensor, kernel: int | tuple[int, ...], stride: int | tuple[int, ...]) -> torch.Tensor:
    """Pad with zeros as TensorFlow does: ceil(size / stride) outputs, the odd zero at the end."""
    kernel = (kernel,) * 3 if isinstance(kernel, int) else kernel
    stride = (stride,) * 3 if isinstance(stride, int) else stride
    pads: list[int] = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Unit(nn.Module):
    def __init__(self, cin, cout, kernel, stride=1, last=False):
        super().__init__()
        self.conv3d = nn.Conv3d(cin, cout, kernel, stride, bias=last)
        if not last:
            self.bn = nn.BatchNorm3d(cout, eps=0.001)

    def forward(self, x):
        x = self.conv3d(pad_same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return F.relu(self.bn(x)) if hasattr(self, "bn") else x


class Inception(nn.Module):
    def __init__(self, cin, b0, b1a, b1b, b2a, b2b, b3b):
        super().__init__()
        self.b0, self.b1a, self.b1b = Unit(cin, b0, 1), Unit(cin, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b, self.b3b = Unit(cin, b2a, 1), Unit(b2a, b2b, 3), Unit(cin, b3b, 1)

    def forward(self, x):
        pooled = F.max_pool3d(pad_same(x, 3, 1), 3, 1)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class TorchI3D(nn.Module):
    """Clips [n, 3, t, h, w] in [-1, 1] to 400 logits."""

    def __init__(self):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.Mixed_3b = Inception(192, 64, 96, 128, 16, 32, 32)
        self.Mixed_3c = Inception(256, 128, 128, 192, 32, 96, 64)
        self.Mixed_4b = Inception(480, 192, 96, 208, 16, 48, 64)
        self.Mixed_4c = Inception(512, 160, 112, 224, 24, 64, 64)
        self.Mixed_4d = Inception(512, 128, 128, 256, 24, 64, 64)
        self.Mixed_4e = Inception(512, 112, 144, 288, 32, 64, 64)
        self.Mixed_4f = Inception(528, 256, 160, 320, 32, 128, 128)
        self.Mixed_5b = Inception(832, 256, 160, 320, 32, 128, 128)
        self.Mixed_5c = Inception(832, 384, 192, 384, 48, 128, 128)
        self.logits = Unit(1024, 400, 1, last=True)

    def forward(self, x):
        pools = {"Conv3d_1a_7x7": ((1, 3, 3), (1, 2, 2)), "Conv3d_2c_3x3": ((1, 3, 3), (1, 2, 2))}
        pools |= {"Mixed_3c": ((3, 3, 3), (2, 2, 2)), "Mixed_4f": ((2, 2, 2), (2, 2, 2))}
        for name, layer in self.named_children():
            if name == "logits":
                x = F.avg_pool3d(x, (2, *x.shape[3:]), stride=1)
            x = layer(x)
            if name in pools:
                kernel, stride = pools[name]
                x = F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)
        return x[..., 0, 0].mean(2)


class TorchBottleneck(nn.Module):
    def __init__(self, cin, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv3d(cin, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.conv3 = nn.Conv3d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * channels)
        self.downsample = nn.Sequential()
        if cin != 4 * channels:
            shortcut = nn.Conv3d(cin, 4 * channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(4 * channels))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + self.downsample(x))


class TorchResNet3D(nn.Module):
    """Clips [n, 3, t, h, w] minus the mean colour to 2,048 features; the file also holds the classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        cin = 64
        for number, (blocks, channels) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(TorchBottleneck(cin, channels, 2 if number > 1 and block == 0 else 1))
                cin = 4 * channels
            setattr(self, f"layer{number}", stage)
        self.fc = nn.Linear(2048, 400)

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.adaptive_avg_pool3d(x, 1).flatten(1)


class TorchLPIPS(nn.Module):
    """Frames [n, 3, h, w] in [-1, 1]; `alexnet()` and `lins()` are its two state dicts."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        for number, channels in enumerate((64, 192, 384, 256, 256)):
            lin = nn.Module()
            lin.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))
            setattr(self, f"lin{number}", lin)

    def alexnet(self) -> dict[str, torch.Tensor]:
        weights = {key: value for key, value in self.state_dict().items() if key.startswith("features")}
        return weights | {"classifier.1.weight": torch.zeros(8, 4), "classifier.1.bias": torch.zeros(8)}

    def lins(self) -> dict[str, torch.Tensor]:
        return {key: value for key, value in self.state_dict().items() if key.startswith("lin")}

    def forward(self, a, b):
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        a, b = (a - shift) / scale, (b - shift) / scale
        total, taps = torch.zeros(len(a)), itertools.count()
        for layer in self.features:
            a, b = layer(a), layer(b)
            if isinstance(layer, nn.ReLU):
                weigh = getattr(self, f"lin{next(taps)}").model
                difference = a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)
                total += weigh(difference**2).mean((1, 2, 3))
        return total


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Fill a module with random weights that keep a signal's size, and random statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif ".model." in name:
                tensor.copy_(noise.abs())  # LPIPS' weights are not negative
            elif tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif tensor.ndim == 1:
                one = name.endswith(".weight")
                tensor.copy_(float(one) + 0.2 * noise)
    return module.eval()

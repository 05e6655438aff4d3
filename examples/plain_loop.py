"""FM-KT in a plain PyTorch loop, on scikit-learn's digits: pip install ./models scikit-learn, then run this file."""

import fmkt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

EPOCHS, STEPS = 30, 4


def backbone(width: int) -> nn.Sequential:
    """Return a small network from images (B, 1, 8, 8) to a feature map (B, 2 * width, 4, 4)."""
    first = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
    second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
    return nn.Sequential(*first, *second)


def batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the images and their labels in batches of 64, shuffled."""
    return [(images[rows], labels[rows]) for rows in torch.randperm(len(images)).split(64)]


def main() -> None:
    """Train a teacher, transfer it, and deploy the student with its steps folded."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # (1797, 1, 8, 8)
    labels, train, test = torch.tensor(digits.target), slice(0, 1200), slice(1200, None)

    teacher = nn.Sequential(backbone(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(teacher.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for x, y in batches(images[train], labels[train]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(teacher(x), y).backward()
            optimizer.step()
    teacher.eval()

    student, criterion = backbone(8), fmkt.FlowTransferLoss(channels=16, num_classes=10, num_steps=STEPS, loss="kd")
    optimizer = torch.optim.Adam([*student.parameters(), *criterion.parameters()], lr=1e-3)
    for x, y in (batch for _ in range(EPOCHS) for batch in batches(images[train], labels[train])):
        with torch.no_grad():
            answers = teacher(x)
        optimizer.zero_grad()
        criterion(student(x), answers, y).total.backward()
        optimizer.step()

    deployed = nn.Sequential(student, fmkt.fold(criterion.flow, num_steps=1, feature_size=(4, 4))).eval()
    for name, network in {"teacher": teacher, "student": deployed}.items():
        accuracy = (network(images[test]).argmax(dim=1) == labels[test]).float().mean()
        values = sum(parameter.numel() for parameter in network.parameters())
        print(f"{name}: {accuracy:.1%} of {len(labels[test])} test images are right, {values:,} values")


if __name__ == "__main__":
    main()

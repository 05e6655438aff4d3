"""Backbones, cut into stages: networks for small images, written here, and those of torchvision, timm and users."""

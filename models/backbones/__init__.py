"""Backbones: feature backbones written for small images, and torchvision's classifiers."""

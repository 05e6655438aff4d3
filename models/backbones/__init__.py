"""Backbones: feature trunks written for small images, and torchvision's classifiers."""

"""Detectors: a feature pyramid on a backbone, torchvision's heads on its levels, and boxes from their answers."""

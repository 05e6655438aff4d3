"""Networks and tensor mathematics; imports PyTorch and torchvision only."""

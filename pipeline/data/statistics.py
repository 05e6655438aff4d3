"""Mean and standard deviation of pixels, from counts of their values: exact, whatever the order of the images."""

import numpy as np

from pipeline.data.reading import Image


class ChannelStatistics:
    """Counts of each value of each channel."""

    def __init__(self) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64)

    def add(self, image: Image) -> None:
        """Count the pixels of ``image`` (..., 3)."""
        for channel in range(3):
            self.counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel, for pixels scaled to [0, 1].

        A channel without variation gets standard deviation 1, so that normalising it is defined.
        """
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
        values = np.arange(256) / 255
        mean = weights @ values
        variance = (weights * (values - mean[:, None]) ** 2).sum(axis=1)
        std = np.where(variance > 0, np.sqrt(variance), 1.0)
        return [round(float(x), 6) for x in mean], [round(float(x), 6) for x in std]

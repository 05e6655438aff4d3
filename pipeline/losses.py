"""The losses of ``models.losses`` under the name that they had here; other programs rely on it."""

from models.losses import correlation, dist_loss, dkd_loss, kd_loss, mse_loss, pkd_loss

__all__ = ["correlation", "dist_loss", "dkd_loss", "kd_loss", "mse_loss", "pkd_loss"]

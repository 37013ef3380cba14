"""A network for small pictures, as `fit_digits.py` names it: "networks.convolutions:Convolutions"."""

from torch import Tensor, nn


class Convolutions(nn.Module):
    """Two convolutions and a layer, for pictures of 8 × 8."""

    def __init__(self, channels: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * channels, classes),
        )  # fmt: skip

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits [B, classes] of pictures [B, 1, 8, 8] with values of 0 to 16."""
        return self.layers(pictures / 16)

"""What an inspection of a photograph gives."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from anomalib_lamp_runtime.heat_maps import draw_heat_map
from anomalib_lamp_runtime.regions import Region


@dataclass(frozen=True)
class Inspection:
    """Result for one photograph.

    Attributes:
        score: Anomaly score in [0, 1], normalised: the threshold of the training is 0.5.
        raw_score: The model's own score, before the normalisation.
        threshold: What the score was compared with.
        anomalous: Whether the score exceeds the threshold.
        anomaly_map: Normalised anomaly map, float32 (h, w) in [0, 1], in the resolution of the model.
        regions: Connected regions where the map exceeds the pixel threshold, those of the highest scores first.
        brightness: Mean grey value in [0, 1].
        sharpness: Standard deviation of the Laplacian of the grey values; blur lowers it.
    """

    score: float
    raw_score: float
    threshold: float
    anomalous: bool
    anomaly_map: np.ndarray
    regions: tuple[Region, ...]
    brightness: float
    sharpness: float

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the map as plain values for one line of JSON."""
        values = {name: value for name, value in vars(self).items() if name not in ("anomaly_map", "regions")}
        return {**values, "regions": [asdict(region) for region in self.regions]}

    def heat_map(self, image: Image.Image) -> Image.Image:
        """Return a photograph with the anomaly map over it and boxes around the regions.

        Args:
            image: The photograph that was inspected.
        """
        return draw_heat_map(image, self.anomaly_map, self.regions)

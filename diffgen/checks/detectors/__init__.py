"""Detectors with one interface: pictures in, boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffgen.checks.detectors.names import listed_names, same_names
from diffgen.checks.detectors.open_vocabulary import OpenDetector, load_open_detector
from diffgen.checks.detectors.ultralytics import Detector, load_detector
from diffgen.errors import UsageError
from diffgen.models.networks import Network
from diffgen.recipe.sections import LEAST_CONFIDENCE


def load_labeller(
    network: Network, names: Sequence[str], device: str
) -> tuple[Detector | OpenDetector, dict[int, int]]:
    """The detector that labels pictures, and a map from the dataset's class ids to its own. `names` are the classes by id.

    Raises UsageError if it lacks one of the classes, DiffgenError if it cannot be loaded.
    """
    assert network.folder is not None
    path = Path(network.folder)
    if path.is_dir():
        return load_open_detector(network, names, device), {i: i for i in range(len(names))}
    detector = load_detector(path, device, confidence=LEAST_CONFIDENCE)
    known = same_names(names, detector.names)
    if unknown := [name for i, name in enumerate(names) if i not in known]:
        raise UsageError(
            f"detector: {path} has no class '{unknown[0]}', so it cannot label the images",
            "use a detector with that class, or an OWLv2 or Grounding DINO model; this one has: "
            + listed_names(detector.names),
        )
    return detector, known

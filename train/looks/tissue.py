"""Histology drawn around the nuclei of a picture whose nuclei are known.

:mod:`.stains` gives fluorescence the colours of stained tissue; here the outlines of the nuclei are known as
well, so that what lies about them can be drawn: cytoplasm, membranes, fibres, lumina and what else
is taken for a nucleus in real sections (red blood cells, keratin, mucus, pigment, the edge of the glass).
Every stain is a plane of concentration; their optical densities add up (Beer–Lambert), with vectors of
haematoxylin and eosin as laboratories have them (:func:`.stains.draw_laboratory`) and with that of
diaminobenzidine (DAB), each jittered. A drawing is a pure function of the nuclei, their texture and the
generator.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .section import Field, Plane, blur, grain
from .stains import DIAMINOBENZIDINE, draw_laboratory
from .strangers import STRANGERS

#: What is stained, and how often it is drawn: DAB in nuclei, on membranes, in the cytoplasm, in none;
#: haematoxylin and eosin.
KINDS = {"nuclear": 0.2, "membrane": 0.1, "cytoplasm": 0.16, "counterstain": 0.08, "eosin": 0.46}
#: Diameters of nuclei in a drawing, pixels.
DIAMETERS = (9.0, 45.0)


def draw(
    labels: NDArray[np.int32], texture: NDArray[np.uint8], diameter: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw one field of a section.

    Parameters
    ----------
    labels
        (H, W), 0 is background.
    texture
        (H, W), the fluorescence that the nuclei are from: bright where they are.
    diameter
        Typical diameter of a nucleus, pixels.
    rng
        The crop's own generator.

    Returns
    -------
    (H, W, 3) uint8, mapped to the full range as the runtime would.
    """
    field = Field(labels, diameter)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    blue = _nuclei(field, texture, rng)
    brown, pink = np.zeros_like(blue), np.zeros_like(blue)
    if kind == "eosin":
        pink, hazy = _eosin(field, rng)
        blue = blue + hazy
    elif kind != "counterstain":
        blue, brown = _antibody(field, kind, blue, rng)
    planes = np.stack([blue, brown, pink])
    for add, share in STRANGERS:
        if rng.random() < share:
            planes = add(field, planes, kind == "eosin", rng)
    return _seen(np.clip(planes, 0, None), rng)


def _nuclei(field: Field, texture: NDArray[np.uint8], rng: np.random.Generator) -> Plane:
    """Concentration of haematoxylin in nuclei: each one's own, its chromatin, its rim; pale or dense."""
    flat = field.labels.ravel()
    grey = texture.astype(np.float32).ravel()
    count = np.maximum(np.bincount(flat), 1)
    mean = np.bincount(flat, grey) / count
    spread = np.sqrt(np.maximum(np.bincount(flat, grey * grey) / count - mean * mean, 1))
    chromatin = ((grey - mean[flat]) / (spread[flat] + 4)).reshape(field.labels.shape).astype(np.float32)
    coarse = rng.uniform(0.02, 0.06) * field.diameter
    chromatin = rng.uniform(0.08, 0.3) * chromatin + rng.uniform(0.04, 0.22) * grain(field.shape, coarse, rng)
    base, vary = rng.uniform(0.12, 0.9), rng.uniform(0.05, 0.6)
    pale = rng.choice([0.0, 0.2, 0.5, 0.9])
    vesicular = field.each(rng, 0, 1) < pale
    rim = np.exp(-field.rim / (rng.uniform(0.03, 0.09) * field.diameter + 0.3))
    # Of a vesicular nucleus one sees the rim and clumps of chromatin, and between them hardly anything.
    clumps = np.clip(2 * grain(field.shape, rng.uniform(0.03, 0.1) * field.diameter, rng) - 1.5, 0, 1.5)
    clear = rng.uniform(0.05, 0.5) + rng.uniform(0.4, 1.0) * rim + rng.uniform(0.1, 0.7) * clumps
    filled = np.where(vesicular, clear, 0.9 + 0.3 * rim)
    nuclei = base * (1 + vary * field.each(rng, -1, 1)) * (1 + chromatin) * filled
    if rng.random() < 0.3:  # nucleoli
        dots = grain(field.shape, 0.07 * field.diameter + 0.5, rng) > 2.0
        nuclei = nuclei + 0.4 * base * (dots & (field.rim > 0.12 * field.diameter))
    found: Plane = (np.clip(nuclei, 0.02, 1.8) * field.soft).astype(np.float32)
    return found


def _eosin(field: Field, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Eosin in cytoplasm and between the cells, and the haematoxylin that is bound outside the nuclei."""
    shape = field.shape
    away, _ = field.around
    streaks = _ground(shape, rng)
    patches = _patches(shape, rng)
    body = (away < rng.uniform(0.2, 1.0) * field.diameter).astype(np.float32)
    pink = rng.uniform(0.05, 0.7) * (0.4 + 0.6 * np.clip(streaks, 0, 3)) * (0.3 + 0.9 * patches)
    pink = pink + rng.uniform(0, 0.35) * blur(body, 1.0) * (0.7 + 0.3 * grain(shape, 1.5, rng))
    # Cytoplasm full of RNA is bluish, and mucin too: what tells nuclei there is not the colour.
    hazy = rng.uniform(0, 0.3) * blur(body * field.each(rng, 0, 1, whole=True), 1.5)
    hazy = hazy + rng.uniform(0, 0.12) * np.clip(0.5 + 0.5 * grain(shape, 12, rng), 0, 2) * patches
    clear = 1 - rng.uniform(0.3, 1.0) * field.soft
    return (pink * clear).astype(np.float32), (hazy * (1 - field.soft)).astype(np.float32)


def _antibody(field: Field, kind: str, blue: Plane, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """DAB where an antibody binds in some of the cells, and the haematoxylin that it leaves to be seen."""
    shape = field.shape
    away, owner = field.around
    chance = rng.choice([0.1, 0.3, 0.6, 0.95])
    positive = field.each(rng, 0, 1, whole=True) < chance
    region = _patches(shape, rng) if chance > 0.5 else np.ones(shape, np.float32)
    reach = rng.uniform(0.25, 1.2) * field.diameter
    body = (away < reach) & positive
    streaks = _ground(shape, rng)
    cells = np.where(away < reach, owner, 0).astype(np.float32)
    border = cv2.morphologyEx(cells, cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    membrane = blur(border.astype(np.float32), rng.uniform(0.7, 0.05 * field.diameter + 0.9))
    membrane = membrane / max(float(membrane.max()), 1e-6)
    if kind == "nuclear":
        strength = rng.uniform(0.25, 1.7) * field.each(rng, 0.4, 1.2)
        brown = positive * strength * (1 + 0.25 * grain(shape, 1.5, rng)) * field.soft
        blue = np.where(positive & field.inside, blue * rng.uniform(0.1, 0.9), blue)
        brown = brown + rng.uniform(0, 0.15) * body * ~field.inside * streaks
    elif kind == "membrane":
        brown = rng.uniform(0.3, 1.5) * membrane * positive * (0.6 + 0.5 * streaks) * region
        brown = brown + rng.uniform(0, 0.3) * body * ~field.inside * streaks
    else:
        within = np.where(field.inside, rng.uniform(0.1, 1.0), 1).astype(np.float32)
        granular = 0.5 + 0.5 * (streaks if rng.random() < 0.6 else np.clip(1 + grain(shape, 1.3, rng), 0, 3))
        brown = rng.uniform(0.25, 1.3) * blur(body.astype(np.float32), 1.2) * granular * within * region
        brown = brown + rng.uniform(0, 0.6) * membrane * positive * region
    ground = rng.uniform(0, 0.12)  # what binds nowhere in particular
    brown = brown + ground * streaks * (1 - field.soft)
    blue = blue + rng.uniform(0, 0.12) * (1 - field.soft) * (0.5 + 0.5 * streaks)
    return blue.astype(np.float32), brown.astype(np.float32)


def _seen(planes: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return what the camera sees of the three stains, mapped to the full range."""
    blue, pink = draw_laboratory(rng)
    vectors = [np.clip(v + rng.normal(0, 0.06, 3), 0.01, None) for v in (blue, DIAMINOBENZIDINE, pink)]
    density = sum(
        plane[..., None] * (vector / np.linalg.norm(vector))
        for plane, vector in zip(planes, vectors, strict=True)
    )
    light = np.clip(rng.normal([0.94, 0.94, 0.95], 0.035), 0.75, 1)
    picture = (light * np.power(10, -np.asarray(density))).astype(np.float32)
    picture = blur(picture, rng.uniform(0.3, 1.3))
    picture += rng.normal(0, rng.uniform(0.002, 0.02), (*picture.shape[:2], 1))
    picture += rng.normal(0, rng.uniform(0, 0.008), picture.shape)
    # The runtime takes the percentiles of the whole slide, of which this is a part.
    low, high = np.percentile(picture[::3, ::3], (0.5, 99.8))
    low = low * rng.uniform(0.5, 1)
    high = max(high + (0.97 - high) * rng.random(), low + 0.1)
    full: NDArray[np.uint8] = (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", full[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))])
        again = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert again is not None  # it was written just now
        full = np.ascontiguousarray(again[..., ::-1], np.uint8)
    return full


def _ground(shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Draw what lies between cells, 0…3 with a mean near 0.5: streaks, clouds, or granules."""
    kind = rng.random()
    if kind < 0.45:
        noise = grain(shape, rng.uniform(1.2, 3), rng, rng.uniform(0, 180), rng.uniform(3, 9))
    elif kind < 0.8:
        noise = 0.5 * grain(shape, rng.uniform(1, 3), rng) + 0.8 * grain(shape, rng.uniform(5, 15), rng)
    else:
        noise = grain(shape, rng.uniform(0.8, 1.6), rng)
    ground: Plane = np.clip(0.5 + rng.uniform(0.1, 0.5) * noise, 0, 3).astype(np.float32)
    return ground


def _patches(shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Large regions, 0…1 with soft edges."""
    return blur((grain(shape, 50, rng) > rng.uniform(-0.9, 0.8)).astype(np.float32), 6)

"""The methods, each from an image to a map: the localizer, and as baselines four blind methods of
classical forensics and a trained linear classifier.

A baseline turns a uint8 (H, W, 3) RGB image into a float32 (H, W) map, higher = more suspicious, in
a unit of its own. Settings were chosen on photographs that are in no test."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from dinolizer.data.manifest import read_pair
from dinolizer.model.backbones import Backbone
from dinolizer.model.batches import as_batch
from dinolizer.model.head import card_for
from dinolizer.model.localization import NOISE_KERNEL
from dinolizer.model.localizer import Localizer
from dinolizer.model.pocket_vit import PATCH, TraceStem
from dinolizer.model.windows import make_plan
from dinolizer.paths import ASSETS
from dinolizer.study.cache import probe_hash
from dinolizer.study.evaluation import Image, Method, Picture, Row, pictures, probe_image, rows_of
from dinolizer.study.heads import Fits, StudyLocalizer
from dinolizer.study.metrics import matched_thresholds
from dinolizer.study.samples import Dataset, draw_rows

Map = NDArray[np.float32]
# Third difference, the residual of Splicebuster (one of the linear filters of Fridrich 2012).
THIRD_DIFFERENCE = np.array([[1, -3, 3, -1]], dtype=np.float32)
SECOND_DIFFERENCE = np.array([[-1, 2, -1]], dtype=np.float32)
GRID = 8  # side of a JPEG block, in pixels
FLAT = 0.01  # what rounding leaves of a grid, in grey levels
REFLECT = cv2.BORDER_REFLECT_101
_stem, _weights = cache(TraceStem), cache(load_file)
MARKED, THRESHOLD_IMAGES = 0.05, 300
"""False-positive rate of a baseline, and images, drawn by the seed, that it is measured on."""


def localized(name: str, localizer: Localizer) -> Method:
    """A localizer at its own threshold."""
    probe = localizer(probe_image(localizer.window, localizer.window + 16)).probability
    made = probe_hash(np.quantile(probe, np.linspace(0, 1, 9)), decimals=2)
    key, threshold = f"{localizer.settings} {made}", localizer.card.threshold
    return Method(name, lambda image, row: localizer(image).probability, threshold, key)


def localizer_method(name: str, backbone: Backbone, fits: Fits, manifest: pd.DataFrame) -> Method:
    """The localizer, with the head that never met the photograph of an image. Logits of windows
    are averaged: the mask at 0.5 is that of their sum, whose probabilities saturate in float32."""
    card, heads = replace(card_for(backbone), reduce="mean"), fits.heads(manifest)
    of_group = {group: StudyLocalizer(backbone, head, card) for group, head in heads.items()}
    whole = localized(name, Localizer(backbone, fits.whole.head, card))

    def predict(image: Image, row: Row) -> Map:
        return of_group[row["group"]](image).probability

    return replace(whole, predict=predict, key=f"{fits.hash} {whole.key}")


def blind_method(name: str) -> Method:
    """A baseline, without a threshold."""
    baseline = BASELINES[name]
    code = probe_hash(baseline(probe_image(96, 80)))
    return Method(name, lambda image, row: baseline(image), np.nan, code)


def baseline_method(name: str, dataset: Dataset, seed: int = 0) -> Method:
    """A baseline, cut where it marks the share `MARKED` of the pixels of unedited photographs: for
    each test photograph, of `THRESHOLD_IMAGES` of the training set or else of all others."""
    method, images = blind_method(name), dataset.test if dataset.train is None else dataset.train
    unedited = draw_rows(images[images["kind"] == "real"], THRESHOLD_IMAGES, seed)
    if unedited.empty:
        return method
    thresholds = matched_thresholds(rows_of([method], unedited), dataset.test["group"], MARKED)
    return replace(method, threshold=thresholds)


def examples(manifest: pd.DataFrame, images: Iterable[str]) -> list[Picture]:
    """Image, mask and row of the images of these names, in their order, to be shown."""
    rows = manifest.set_index("image", drop=False).loc[list(images)].to_dict("records")
    return [(*read_pair(row), row) for row in rows]


def own_scores(backbone: Backbone, manifest: pd.DataFrame) -> pd.DataFrame:
    """Rows for `metrics.detection_table` of a backbone's own classifier: its mean logit on windows
    in the centre and the four corners of an image, as in B-Free (Guillaro et al., CVPR 2025)."""
    spec, side, scores = backbone.spec, backbone.spec.window, []
    for image, _, _ in pictures(manifest):
        size = image.shape[:2]
        plan = make_plan(size, window=side, stride=side, patch=spec.patch, small=spec.small)
        (below, right), fitted = (length - side for length in plan.fitted), plan.fit(image)
        places = [*product((0, below), (0, right)), (below // 2, right // 2)]
        windows = as_batch([plan.cut(fitted, place) for place in places], backbone.device)
        scores.append(backbone.image_logits(windows).mean().item())
    return manifest[["group", "kind"]].assign(method=f"{spec.name}'s own classifier", score=scores)


def noise_inconsistency(image: Image, window: int = 15) -> Map:
    """Absolute log-ratio of the noise level in windows of so many pixels to the image's median. The
    standard deviation of the noise is ``sqrt(pi / 2) * mean |high-pass residual| / 6`` (Immerkaer,
    "Fast noise variance estimation", CVIU 64, 1996), locally (Mahdian and Saic, "Using noise
    inconsistencies for blind image forensics", Image and Vision Computing 27, 2009). Residuals are
    cut at the image's median, so that texture does not pass for noise."""
    residual = cv2.filter2D(image, cv2.CV_32F, NOISE_KERNEL, borderType=REFLECT)
    level = np.sqrt(np.pi / 2) / 6 * np.abs(residual).mean(axis=2)
    # The floor is the noise that rounding to whole grey levels leaves, 1 / sqrt(12).
    return _log_deviation(level, window, cut=1.0, floor=1 / np.sqrt(12))


def error_level(image: Image, quality: int = 85, window: int = 17) -> Map:
    """Error-level analysis: local loss under one more JPEG compression, in windows of two JPEG
    blocks and a pixel, as absolute log-ratio to the image's median (Krawetz, "A Picture's Worth:
    Digital Image Analysis and Forensics", Black Hat 2007)."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    compressed = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]
    loss = np.abs(image - compressed.astype(np.float32)).mean(axis=2)
    return _log_deviation(loss, window, cut=1.5, floor=0.1)


def residual_features(image: Image, block: int = 16, stride: int = 8, components: int = 8) -> Map:
    """Splicebuster: blocks whose residual statistics do not fit the rest of the image.

    After Cozzolino, Poggi and Verdoliva, "Splicebuster: a new blind image splicing detector", WIFS
    2015: third differences are quantised to three levels, co-occurrences of four neighbours along
    and across the filter are counted per block, the square roots of their frequencies are reduced
    by PCA, and a mixture of two Gaussians is fitted by expectation maximisation: one of what is
    photographed, the heavier, and one of what is not. Ours are smaller blocks. The map is the
    logarithm of the squared Mahalanobis distance to the heavier one; zero for a flat image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8)
    features = np.sqrt(_cooccurrences(grey, block, stride))  # (h, w, 2 * bins)
    height, width, bins = features.shape
    blocks = features.reshape(-1, bins)
    if len(blocks) < 2 or np.allclose(blocks, blocks[0]):
        return np.zeros(image.shape[:2], dtype=np.float32)
    reduced = PCA(min(components, *blocks.shape)).fit_transform(blocks)
    # The ridge: a flat part of an image has no covariance of its own.
    mixture = GaussianMixture(2, reg_covar=1e-2, random_state=0).fit(reduced)
    heavier = mixture.weights_.argmax()
    centred = reduced - mixture.means_[heavier]
    distances = np.sum(centred @ mixture.precisions_[heavier] * centred, axis=1)
    grid = np.log(distances + 1e-3).reshape(height, width).astype(np.float32)
    return np.asarray(cv2.resize(grid, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def jpeg_grid(image: Image, window: int = 33) -> Map:
    """Where the grid of blocks that JPEG leaves in an image is missing, or lies elsewhere.

    After Li, Yuan and Yu, "Passive detection of doctored JPEG image via block artifact grid
    extraction", Signal Processing 89, 2009: second differences are largest where two blocks meet,
    every eighth column and row. The map is the log-ratio of their local mean, in windows of so many
    pixels, at all eight offsets to that at the image's strongest one, summed over columns and rows.
    Differences are cut at three times the image's median, so that texture does not count."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    missing = np.zeros(grey.shape, np.float32)
    for turned, log_ratio in ((grey, missing), (grey.T, missing.T)):
        across = np.ascontiguousarray(turned)
        edges = np.abs(cv2.filter2D(across, cv2.CV_32F, SECOND_DIFFERENCE, borderType=REFLECT))
        edges = np.minimum(edges, 3 * np.median(edges) + 1)
        offsets = np.zeros((GRID, *edges.shape), np.float32)
        for offset in range(GRID):
            offsets[offset, :, offset::GRID] = edges[:, offset::GRID]
        local = np.stack([cv2.blur(of, (window, window), borderType=REFLECT) for of in offsets])
        local += np.roll(local, -1, axis=0)  # the pixels on both sides of an edge differ
        strongest = local.mean(axis=(1, 2)).argmax()
        log_ratio += np.log(local.mean(axis=0) + FLAT) - np.log(local[strongest] + FLAT)
    return missing


def residual_classifier(image: Image, folder: Path = ASSETS) -> Map:
    """A rival of the pocket backbone: a linear classifier on the statistics of its stem, fitted on
    the same kind of crops (``pretraining``). What the transformer is worth, it finds beyond this.

    The map is of logits, interpolated linearly; a patch that is cut by the edge is mirrored."""
    height, width = image.shape[:2]
    ends = [(0, -length % PATCH) for length in (height, width)]
    whole = np.pad(image, [*ends, (0, 0)], mode="symmetric")
    weights = _weights(folder / "pocket-rival.safetensors")
    logits = statistics(whole) @ weights["weight"].numpy() + weights["bias"].numpy()
    enlarged = cv2.resize(logits, whole.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged[:height, :width], np.float32)


def statistics(image: Image) -> NDArray[np.float32]:
    """The stem's statistics of each patch less their mean over the image, ``(h, w, C)``."""
    with torch.inference_mode():
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        features = _stem().statistics(pixels)[0]
        return (features - features.mean(dim=(1, 2), keepdim=True)).permute(1, 2, 0).numpy()


BASELINES: dict[str, Callable[[Image], Map]] = {
    "noise inconsistency": noise_inconsistency,
    "error level analysis": error_level,
    "residual features": residual_features,
    "JPEG grid": jpeg_grid,
    "residual classifier": residual_classifier,
}


def _log_deviation(level: Map, window: int, *, cut: float, floor: float) -> Map:
    """Absolute log-ratio of a local mean to its median; values are cut at a multiple of theirs."""
    kept = np.minimum(level, cut * np.median(level)).astype(np.float32)
    local = cv2.boxFilter(kept, -1, (window, window), borderType=REFLECT)
    logarithm = np.log(np.maximum(local, 0) + floor)
    return np.asarray(np.abs(logarithm - np.median(logarithm)), dtype=np.float32)


# Bin of each of the 3**4 patterns; a pattern, its negative and its mirror image share one.
_PATTERNS = np.array(list(product((-1, 0, 1), repeat=4)))
_ALIKE = np.stack([_PATTERNS, -_PATTERNS, _PATTERNS[:, ::-1], -_PATTERNS[:, ::-1]]) + 1
BIN_OF_PATTERN = np.unique((_ALIKE @ [27, 9, 3, 1]).max(axis=0), return_inverse=True)[1]


def _cooccurrences(grey: NDArray[np.uint8], block: int, stride: int) -> NDArray[np.float32]:
    """Frequencies of quantised residuals of four neighbours, per block: (h, w, 2 * bins)."""
    along: list[NDArray[np.int64]] = []
    across: list[NDArray[np.int64]] = []
    for image, turn in ((grey, np.asarray), (grey.T, np.transpose)):
        whole = np.ascontiguousarray(image)
        residual = cv2.filter2D(whole, cv2.CV_32F, THIRD_DIFFERENCE, borderType=REFLECT)
        levels = np.sign(residual).astype(np.int64) + 1  # of 8-bit grey: none, up or down
        for axis, bins in ((1, along), (0, across)):  # patterns wrap at the edge
            code = sum(np.roll(levels, -step, axis) * 3 ** (3 - step) for step in range(4))
            bins.append(turn(BIN_OF_PATTERN[code]))
    # Rows and columns are counted together: a photograph has no reason to tell them apart.
    return np.concatenate([_block_histograms(of, block, stride) for of in (along, across)], axis=-1)


def _block_histograms(
    labels: Sequence[NDArray[np.int64]], block: int, stride: int
) -> NDArray[np.float32]:
    """Share of each bin in the block around every stride-th pixel: (h, w, bins)."""
    histograms = []
    for label in range(BIN_OF_PATTERN.max() + 1):
        share = np.stack([bins == label for bins in labels]).mean(axis=0, dtype=np.float32)
        mean = cv2.boxFilter(share, -1, (block, block), borderType=REFLECT)
        histograms.append(mean[stride // 2 :: stride, stride // 2 :: stride])
    return np.asarray(np.maximum(np.stack(histograms, axis=-1), 0))

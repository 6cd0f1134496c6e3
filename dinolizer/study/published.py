"""What others have published of their methods: numbers of theirs, on images of theirs.

They are never put beside numbers that were measured here: other images, masks and averages.
"""

import pandas as pd

PUBLISHED_RULE = (
    "Measured by their authors on other images than those of this study; not comparable with any "
    "number that was measured here"
)
TGIF_SHEET = "authors' results sheet of TGIF (Mareen et al., WIFS 2024, arXiv:2407.11566)"
TGIF_CASES = (("SD2", "sp"), ("Photoshop", "sp"), ("SD2", "fr"), ("SDXL", "fr"))
# F1 at 0.5 and AUC, means over the edited test images, in the order of the cases.
TGIF_PLAIN = {
    "CAT-Net v2": ((0.873, 0.994), (0.848, 0.990), (0.045, 0.581), (0.029, 0.568)),
    "TruFor": ((0.831, 0.984), (0.794, 0.973), (0.186, 0.729), (0.178, 0.728)),
    "MMFusion": ((0.745, 0.918), (0.739, 0.903), (0.149, 0.625), (0.182, 0.693)),
    "ManTraNet": ((0.154, 0.777), (0.557, 0.937), (0.030, 0.613), (0.051, 0.565)),
    "IF-OSN": ((0.231, 0.757), (0.364, 0.846), (0.199, 0.709), (0.181, 0.708)),
    "PSCC-Net": ((0.151, 0.842), (0.382, 0.940), (0.046, 0.476), (0.052, 0.473)),
    "MVSS-Net++": ((0.067, 0.692), (0.079, 0.720), (0.055, 0.674), (0.091, 0.677)),
    "SPAN": ((0.001, 0.545), (0.002, 0.636), (0.001, 0.553), (0.000, 0.511)),
}
# F1 at 0.5 on SD2, sp, after JPEG of these qualities.
TGIF_JPEG = {
    "CAT-Net v2": {80: 0.050, 60: 0.092},
    "TruFor": {80: 0.322, 60: 0.252},
    "MMFusion": {80: 0.349, 60: 0.224},
}


def published_numbers() -> pd.DataFrame:
    """The published numbers of peers.

    Returns
    -------
    Columns ``method, dataset, generator, kind, degradation, published_f1, published_auc`` (of
    pixels; nan where none is given), ``source``.
    """
    plain = [
        (method, generator, kind, "none", f1, auc)
        for method, scores in TGIF_PLAIN.items()
        for (generator, kind), (f1, auc) in zip(TGIF_CASES, scores, strict=True)
    ]
    compressed = [
        (method, "SD2", "sp", f"JPEG {quality}", f1, float("nan"))
        for method, scores in TGIF_JPEG.items()
        for quality, f1 in scores.items()
    ]
    columns = ["method", "generator", "kind", "degradation", "published_f1", "published_auc"]
    table = pd.DataFrame(plain + compressed, columns=columns)
    table.insert(1, "dataset", "TGIF")
    return table.assign(source=TGIF_SHEET)

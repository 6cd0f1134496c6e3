"""Scores of pictures made by hand, and tables of rows made by hand, against counts and scipy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from execution import execute
from intervals import halls
from small import small_localizer

from dinolizer.data.datasets import make_manifest
from dinolizer.data.images import read_image, write_image
from dinolizer.data.manifest import read_manifest
from dinolizer.paths import ROOT
from dinolizer.study import evaluation
from dinolizer.study.experiments import real_inpaintings as real
from dinolizer.study.methods import BASELINES

METHODS = [real.METHOD, *BASELINES]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DINOLIZER_CACHE", str(tmp_path / "cache"))


def rows_of(**columns: object) -> pd.DataFrame:
    """Rows of the demonstration on pictures as published; scores that are not given are 0."""
    scores = dict.fromkeys(real.SCORES, 0.0)
    about = {"condition": "as published", "method": real.METHOD, "area": 0.1}
    rows = pd.DataFrame({**columns})
    rows = rows.assign(
        **{name: value for name, value in (about | scores).items() if name not in rows}
    )
    return rows.assign(picture=[str(number) for number in range(len(rows))])


def test_scores_of_pictures_are_those_of_their_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against counts of pixels and, for the AUC, of pairs of pixels; of all, edges too."""
    monkeypatch.setattr(evaluation, "RING", 0)
    make_manifest("csv", trees.make_inpaintings(tmp_path / "in"), tmp_path / "m.csv")
    manifest = read_manifest(tmp_path / "m.csv").head(2)
    localizer, _ = small_localizer()
    rows = real.picture_rows(localizer, manifest)
    assert len(rows) == 2 * len(real.CONDITIONS) * len(METHODS)
    assert rows["method"].unique().tolist() == METHODS
    for row in manifest.to_dict("records"):
        truth = read_image(row["mask"])[..., 0] > 127
        found = localizer(row["image"])
        line = rows[
            (rows["picture"] == Path(row["image"]).stem) & (rows["condition"] == "as published")
        ]
        own = line[line["method"] == real.METHOD].iloc[0]
        inside, outside = found.probability[truth], found.probability[~truth]
        more = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
        assert own["auc"] == pytest.approx(more, abs=1e-9)
        assert own["iou"] == (found.mask & truth).sum() / (found.mask | truth).sum()
        assert own["false_positive_rate"] == found.mask[~truth].mean()
        assert own["scene"] == row["group"] and own["area"] == truth.mean()
        others = line[line["method"] != real.METHOD]
        assert others["iou"].isna().all() and others["auc"].between(0, 1).all()
    # From the cache the same, and JPEG changes something.
    pd.testing.assert_frame_equal(real.picture_rows(localizer, manifest), rows)
    assert (rows.groupby(["picture", "method"])["auc"].nunique() == 2).all()


def test_unedited_photographs_give_the_share_marked(tmp_path: Path) -> None:
    localizer, _ = small_localizer()
    for number, side in enumerate((60, 70)):
        image = np.random.default_rng(number).integers(0, 256, (side, 80, 3), np.uint8)
        write_image(tmp_path / "Photos" / f"{number}.png", image)
    table = real.unedited_table(localizer, [str(tmp_path / "Photos")])
    shares = [localizer(path).predicted_area for path in (tmp_path / "Photos").iterdir()]
    assert table["condition"].tolist() == list(real.CONDITIONS)
    line = table.iloc[0]
    assert (line["collection"], line["n_pictures"], line["n"]) == ("Photos", 2, 2)
    assert line["false_positive_rate"] == pytest.approx(np.mean(shares))


def test_few_scenes_get_students_interval() -> None:
    rows = rows_of(
        scene=list("aabbc"), auc=[0.5, 0.7, 0.4, 0.6, 0.9], area=[0.1, 0.1, 0.2, 0.3, 0.3]
    )
    line = real.score_table(rows, ["method"]).iloc[0]
    assert (line["n_pictures"], line["n"]) == (5, 3)
    assert line["auc"] == pytest.approx(0.62) and line["area"] == pytest.approx(0.2)
    # Without a scene 1.9 / 3, 2.1 / 3 and 2.2 / 4.
    pseudo = 3 * 0.62 - 2 * np.array([1.9 / 3, 2.1 / 3, 2.2 / 4])
    low, high = np.array(halls(pseudo)) - pseudo.mean() + 0.62
    assert (line["auc_low"], line["auc_high"]) == pytest.approx((low, min(high, 1)))
    alone = real.score_table(rows[rows["scene"] == "a"], ["method"]).iloc[0]
    assert np.isnan(alone["auc_low"])


def test_many_scenes_get_a_bootstrap_over_them() -> None:
    """Of 100 normal numbers, each of a scene's two pictures: the mean and 1.96 standard errors;
    over pictures instead of scenes it would be narrower by the square root of two."""
    values = np.repeat(np.random.default_rng(0).normal(0.5, 0.1, size=100), 2)
    rows = rows_of(scene=np.repeat(np.arange(100), 2), auc=values)
    line = real.score_table(rows, ["method"], scores=["auc"]).iloc[0]
    half = 1.96 * values[::2].std() / 10
    ends = values.mean() - half, values.mean() + half
    assert (line["auc_low"], line["auc_high"]) == pytest.approx(ends, abs=0.003)


def test_generators_count_once_and_small_ones_only_as_pictures() -> None:
    """Two generators of 4 and 5 pictures, with means .2 and .8, and one of a single picture."""
    rows = rows_of(
        generator=[*"AAAABBBBBC"], scene=[*"abcdefghij"], auc=[0.2] * 4 + [0.8] * 5 + [1.0]
    )
    table = real.mean_table(rows).set_index("over")
    assert table.loc["generators", "auc"] == pytest.approx(0.5)
    assert table.loc["generators", ["n_pictures", "n"]].tolist() == [9, 2]
    assert table.loc["pictures", "auc"] == pytest.approx((0.8 + 4 + 1) / 10)
    assert table.loc["pictures", ["n_pictures", "n"]].tolist() == [10, 10]


def test_what_was_wanted_stands_beside_what_was_reached() -> None:
    both = [
        rows_of(generator=[*"AAAA"], scene=[*"abcd"], auc=auc, ap=0.45).assign(condition=condition)
        for condition, auc in zip(real.CONDITIONS, (0.7, 0.6), strict=True)
    ]
    unedited = pd.DataFrame(
        {"condition": ["as published"] * 2, "false_positive_rate": [0.02, 0.04]}
    )
    ends = dict.fromkeys(("false_positive_rate_low", "false_positive_rate_high"), np.nan)
    means = real.mean_table(pd.concat(both))
    # By generator 0.1, 0.2 and 0.3 above the rival: a mean of 0.2, and Student's t of two degrees
    # of freedom, 4.303, times 0.1 / sqrt(3). The fourth has too few pictures to count.
    generators = pd.DataFrame(
        {
            "condition": "as published",
            "method": [real.METHOD] * 4 + [real.RIVAL] * 4,
            "generator": [*"ABCD"] * 2,
            "n_pictures": [4, 5, 6, 3] * 2,
            "auc": [0.6, 0.8, 0.8, 0.1, 0.5, 0.6, 0.5, 0.9],
        }
    )
    table = real.wanted_table(means, unedited.assign(n=[24, 200], **ends), generators)
    assert table["value"].round(9).tolist() == [0.7, 0.7, 0.45, 0.6, 0.2, 0.04]
    # Four pictures alike reach 0.68; the lead begins at 0.2 - 0.25; the others have no interval.
    assert table["reached"].tolist() == ["undecided", "reached"] + ["undecided"] * 4
    assert table["n"].tolist() == [1, 4, 1, 1, 3, 200]
    np.testing.assert_allclose(table.loc[4, "high"] - 0.2, 4.303 * 0.1 / 3**0.5, atol=1e-3)


def test_the_notebook_measures_pictures_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With miniatures in place of the real ones, and the shipped demonstration."""
    monkeypatch.setenv("DINOLIZER_RESULTS", str(tmp_path / "results"))
    listed = trees.make_inpaintings(tmp_path / "in", number=2, side=224)
    make_manifest("csv", listed, tmp_path / "m.csv")
    names = {"inpaintings": str(tmp_path / "m.csv"), "unedited": [str(tmp_path / "none")]}
    left = execute(ROOT / "notebooks" / "11-real-inpaintings.ipynb", names)
    assert left["means"]["n_pictures"].tolist() == [4] * 24
    tables = tmp_path / "results" / "pocket" / "tables"
    assert len(pd.read_csv(tables / "11-pictures.csv")) == 4 * 2 * 6
    assert not (tables / "11-unedited.csv").exists()


def test_the_committed_means_are_those_of_the_committed_pictures() -> None:
    rows = pd.read_csv(real.COMMITTED / "tables" / "11-pictures.csv")
    means = pd.read_csv(real.COMMITTED / "tables" / "11-means.csv")
    again = real.mean_table(rows)
    for score in real.SCORES:
        np.testing.assert_allclose(again[score], means[score], atol=0.0011)


def test_no_committed_result_names_a_machine() -> None:
    files = [*real.COMMITTED.glob("tables/*.json"), *real.COMMITTED.glob("figures/*.json")]
    assert len(files) == 9
    for path in files:
        text = path.read_text()
        assert '"inpaintings": "data/inpaintings.csv"' in text and '"/' not in text

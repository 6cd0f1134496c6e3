"""Published numbers stay in a table of their own, with where they are from."""

from dinolizer.study.published import published_numbers


def test_every_number_is_marked_as_published_and_has_a_source() -> None:
    table = published_numbers()
    numbers = table.select_dtypes("number").columns
    assert list(numbers) == ["published_f1", "published_auc"]
    assert (table["source"].str.len() > 0).all()
    assert table["published_f1"].between(0, 1).all()
    plain = table[table["degradation"] == "none"]
    assert len(plain) == 8 * 4 and plain["published_auc"].between(0.4, 1).all()
    found = plain.set_index(["method", "generator", "kind"])["published_f1"]
    assert found["TruFor", "SDXL", "fr"] == 0.178
    assert found["CAT-Net v2", "Photoshop", "sp"] == 0.848
    compressed = table.set_index(["method", "degradation"])["published_f1"]
    assert compressed["MMFusion", "JPEG 60"] == 0.224

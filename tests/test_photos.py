import pytest

from dinolizer.data.photos import PHOTOS, load_photo
from dinolizer.data.pocket import SIDE
from dinolizer.errors import InputError


@pytest.mark.parametrize("name", PHOTOS)
def test_every_photograph_is_in_colour_and_large_enough(name: str) -> None:
    photo = load_photo(name)
    assert photo.ndim == 3
    assert min(photo.shape[:2]) >= SIDE
    assert (photo[..., 0] != photo[..., 2]).any()


def test_an_unknown_photograph_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="'lena'"):
        load_photo("lena")

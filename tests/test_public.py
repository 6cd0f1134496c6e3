"""The package names its whole public face, lazily."""

import pytest

import dinolizer


def test_every_public_name_is_there_and_an_unknown_one_is_not() -> None:
    for name in dinolizer.__all__:
        assert getattr(dinolizer, name).__name__ == name
    assert issubclass(dinolizer.InputError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'Lokalizer'"):
        dinolizer.Lokalizer  # noqa: B018

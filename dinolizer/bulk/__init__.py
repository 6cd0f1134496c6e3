"""A million pictures: listed, streamed through the localizer, kept in a table."""

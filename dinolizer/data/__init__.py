"""Images, masks and the table that lists them."""

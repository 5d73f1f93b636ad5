"""`describe`: a page for people about one thing, one module per kind; `cli.describe.page` is what they share."""

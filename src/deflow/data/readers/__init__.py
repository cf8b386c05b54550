"""One reader for each format in which a user's own data may come; all give `RawData`."""

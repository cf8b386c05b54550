"""One reader for each format in which data may come; those of a user's own give `RawData`."""

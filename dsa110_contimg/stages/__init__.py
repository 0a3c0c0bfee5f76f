"""One verb a module: record and options in, record out. No stage knows what ran before it, and none touches the database."""

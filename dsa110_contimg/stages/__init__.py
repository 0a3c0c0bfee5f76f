"""One verb a module: record and options in, record out. No stage knows what ran before; none touches the database."""

"""Numbers and Datasets in, numbers and Datasets out: no files, no clock, no CASA, no environment."""

"""One layout of image sets a file, each read into records."""

"""One file per data set; each is a source of tasks."""

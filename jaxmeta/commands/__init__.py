"""The commands: a module each, whose `run(argv)` does it."""

"""The commands behind the CLI: each module's `run(config)` is a thin shell over the packages above it."""

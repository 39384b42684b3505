"""The data-efficiency curve: the grid of runs, its results table, its statistics, summary and plot."""

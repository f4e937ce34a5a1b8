"""The report of runs: one page that shows what their folders hold."""

"""`make bench`: the loops of the series beside the tools that a learner would otherwise pick, timed in one run."""

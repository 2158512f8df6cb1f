"""Who knows whether another paid order covers a learner; ``COVERED_BY`` names one."""

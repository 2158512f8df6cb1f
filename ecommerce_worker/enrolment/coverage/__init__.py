"""Modules that find out whether another paid order covers a learner; ``COVERED_BY`` names one."""

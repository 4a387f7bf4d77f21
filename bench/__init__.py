"""Measurements, not tests: what hoster costs, side by side with what it is compared to, in one run.

``make bench-pump`` takes two minutes, ``make bench-plan`` about as long and 3 GiB of memory; neither needs
ZFS. ``make bench-replicate`` runs in the lab, for many minutes. Nothing of this machine is changed. Numbers
of two machines, or of two days, do not compare; ratios do.
"""

"""Locks: what excludes what, how far, and what releases it.

=============================  ===========================================  =======================================
What                           Among                                        Ends
=============================  ===========================================  =======================================
``locks.machine``              runs of one order on a machine               with the run, or its process
``locks.cluster``              runs of one order on all machines            with the run, or its lease
``locks.broker``               runs of one job on all machines              with the run, or its connection
``runtime.Run.lock``           deliveries of one message to one process     with the run
=============================  ===========================================  =======================================
"""

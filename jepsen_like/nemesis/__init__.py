"""Who breaks the cluster: packages of a fault generator, a final generator that undoes everything, and the hand that
does it.

`book` (what is broken right now, and the executed schedule), `partition` and `processes` (what to break), `package`
(when, and the packages by name), `impairment` (which agent was cut off or paused when: for reports and for judging a
run's effort).
"""

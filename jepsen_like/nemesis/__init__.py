"""Who breaks the cluster: packages of a fault generator, a final generator that undoes everything, and the hand that
does it.

`book` (what is broken right now, and the executed schedule), `package` (when, and the packages by name); `partition`,
`processes` (which links and agents to hit), `breaking`, `membership`, `handover`, `lag` and `rolling` (the hands),
`operator_api` (Consul's operator API as a nemesis uses it), `workers` (all hands, bound to a running cluster);
`impairment` (which agent was cut off or paused when: for reports and for judging a run's effort).
"""

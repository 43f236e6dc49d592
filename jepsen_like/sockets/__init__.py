"""The machine of `model_checks/stateful/sockets` bound to a cluster of real processes, and its command.

`binding` asks real agents over real sockets, `command` is `comitia check sockets`. Reaches agents as everybody does: by
HTTP.
"""

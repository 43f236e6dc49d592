"""What clients do to the system: each workload is a generator, a worker that talks KV, final reads, and the model
that judges.
"""

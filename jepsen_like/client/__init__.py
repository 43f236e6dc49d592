"""A test's own clients: a small keep-alive HTTP connection over any socket, Consul's KV over it, and what each answer
means.
"""

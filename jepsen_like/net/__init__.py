"""Links that can be made to fail: a packet switch in user space between network namespaces."""

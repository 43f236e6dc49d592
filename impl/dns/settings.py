"""What an operator may set of DNS: Consul's `dns_config`, as far as it is served.

Source: Consul, "Agent configuration", `dns_config`; "DNS caching".
"""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are in seconds."""

    domain: str = "consul"
    datacenter: str = "dc1"
    node_ttl: int = 0
    service_ttl: tuple[tuple[str, int], ...] = ()
    """By service; a name that ends with `*` stands for all that begin like it, see `ttl_of`."""
    only_passing: bool = False
    udp_answer_limit: int = 3
    """Records in an answer over UDP to who takes no more than 512 bytes; 8 at most."""
    a_record_limit: int = 0
    """Addresses in an answer about a service, and not marked if there are more; 0: all. Not of SRV records."""
    enable_truncate: bool = True
    """*Deviation:* Consul marks cut answers only if told to."""
    node_meta_txt: bool = True
    """A node's metadata beside its addresses, and beside SRV records, while there is room."""
    soa_refresh: int = 3600
    soa_retry: int = 600
    soa_expire: int = 86_400
    soa_min_ttl: int = 0
    """For how long resolvers may keep a denial."""

    def ttl_of(self, service: str) -> int:
        """The TTL of a service's records: its own, else that of the longest prefix, else 0.

        So says "DNS caching"; *deviation:* the code of Consul's current router falls back to `node_ttl`.
        """
        exact = dict(self.service_ttl)
        if service in exact:
            return exact[service]
        prefixes = [each for each in exact if each.endswith("*") and service.startswith(each[:-1])]
        return exact[max(prefixes, key=len)] if prefixes else 0

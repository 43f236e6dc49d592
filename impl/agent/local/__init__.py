"""An agent's own services and health checks: what it says of its node, and how that comes into the catalog."""

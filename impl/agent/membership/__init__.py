"""Who belongs to the cluster: servers that find each other, join, are promoted, removed, and registered."""

"""What an agent counts and measures of itself, and how that is shown: Consul's telemetry, without its sinks."""

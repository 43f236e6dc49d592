"""A run drawn as one HTML page that needs nothing else: no scripts, no network, inline SVG."""

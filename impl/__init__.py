"""The system: agents on real sockets. Knows neither the spec nor its judges. See ARCHITECTURE.md, section 2."""

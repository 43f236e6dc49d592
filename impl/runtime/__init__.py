"""The outside world: the only place with asyncio, os, socket, threading and time."""

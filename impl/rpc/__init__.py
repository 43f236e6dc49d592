"""Frames, handshake, peer links and calls between agents, over the runtime's network."""

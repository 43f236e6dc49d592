"""What a run leaves behind, written while it happens, so that a crash loses nothing and `chaos analyze` can judge
again.
"""

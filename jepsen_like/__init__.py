"""Everything that makes a real cluster suffer. Reaches the implementation only as processes, over sockets."""

"""Finding the nearest vectors: in this process, and by the server's search module."""

"""A semantic cache for retrieval, answers and embeddings. Not built yet."""

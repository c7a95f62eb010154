"""In and out: embeddings made elsewhere, and embeddings for elsewhere."""

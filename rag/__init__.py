"""A RAG service on this project's nearest neighbours, and the experiments that measure it under load."""

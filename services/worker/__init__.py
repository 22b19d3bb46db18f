"""The queue worker (import name `ragcore_worker`)."""

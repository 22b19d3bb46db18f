"""The HTTP service (import name `ragcore_api`)."""

"""Ray's command line."""

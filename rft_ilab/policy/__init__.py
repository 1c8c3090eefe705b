"""Things that answer prompts: a scripted one for tests, an endpoint, and a local torch model."""

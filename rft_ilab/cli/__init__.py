"""Click commands of ``ilab``: parse, call the pipeline, print, exit code. Heavy imports stay inside them."""

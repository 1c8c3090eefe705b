"""Run directory -> JSON, terminal, Markdown, HTML. Reads files only; imports no stage.

Each output is its own module, so that ``ilab rft report --json`` loads neither rich nor jinja2.
"""

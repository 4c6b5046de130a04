"""Web pages that need no other file: one set of templates (Jinja2), and pictures, videos and curves inside them."""

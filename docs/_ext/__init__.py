"""What the site is made with: a directive a file. What a chapter says of itself comes from `tools.chapters`."""

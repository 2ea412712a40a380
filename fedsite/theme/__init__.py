"""How things look: the style sheet's source and the figures of a page."""

"""The book: its chapters, the pages that numbers make, and the site."""

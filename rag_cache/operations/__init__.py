"""What is asked of the server: one script each, its call built and its reply read here."""

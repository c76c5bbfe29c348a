"""Examples that run from a clone and are not part of the installed package."""

"""A page in the browser: drop an image, look at its labels (needs the extra ``[web]``)."""

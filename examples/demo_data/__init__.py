"""The built-in demo data set: small drawn scenes in ADE20K's layout, the same bytes every time."""

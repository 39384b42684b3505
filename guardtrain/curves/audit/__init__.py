"""What the embeddings give away besides the label: edits, sources, pools, duplicates; what pair differences share."""

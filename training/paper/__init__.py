"""`har-reproduce`: the whole paper, step by step."""

"""The links over GLIDE: the only place that imports it.

`clients` makes GLIDE's clients and knows its insides; `errors` sorts what it
raises; a *lane* is one connection; `exchange` turns calls into commands; `scan`
walks over all shards; `link` is what the rest of the package sees.
"""

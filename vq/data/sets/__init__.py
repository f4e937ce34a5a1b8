"""Image data sets: folders of files, published sets, sets in shards, and sets inside packages."""

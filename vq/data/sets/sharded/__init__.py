"""Images in shards: tar files and Parquet files, here or behind an address."""

"""Training: from Parquet to a ranker, and from a ranker to a bundle. Importing this package alone loads no torch."""

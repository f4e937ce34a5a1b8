"""Parts that quantizers and codebooks are composed of, such as distances, estimators and revivals."""

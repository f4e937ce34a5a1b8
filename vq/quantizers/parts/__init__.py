"""Parts that quantizers are composed of: estimators, distances, initialization, revival, regularisers, annealing."""

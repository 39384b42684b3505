"""The UnsafeBench protocol: published guards, effectiveness, robustness."""

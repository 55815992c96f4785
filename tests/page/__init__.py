"""The page in a real browser: Debian's packages chromium and chromium-driver."""

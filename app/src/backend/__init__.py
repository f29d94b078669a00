"""The backend that Slipway bundles: documents over HTTP, on SQLite or PostgreSQL."""

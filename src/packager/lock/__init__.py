"""Names to exact bytes, resolved once and written down."""

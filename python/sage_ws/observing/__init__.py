"""What `sage_ws.metrics` and `sage_ws.otel` show, and how it is called; knows neither of their libraries."""

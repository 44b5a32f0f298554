"""Django's SQLite with a queue before its one place for a writer."""

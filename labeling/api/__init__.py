"""What people said, as a REST API: one resource a file. Every view calls one domain method, as the pages do."""

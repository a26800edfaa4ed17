"""From raw records to the paper: records, provenance, sealing, statistics, figures, tables and numbers."""

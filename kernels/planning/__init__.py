"""What a run's sweeps and benches will take, before anything is submitted: estimates from earlier records, shards, the bill."""

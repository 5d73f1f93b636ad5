"""What Prometheus gets of a worker: `figures` has what is counted, `scrape` what is looked up when somebody asks, and
`http` is where they ask."""

"""ServerlessLLM 0.8.0 on Ray: its environment, its models, and the driver that launches it, asks it and ends it."""

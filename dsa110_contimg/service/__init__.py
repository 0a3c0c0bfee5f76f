"""What keeps the pipeline going: the worker that takes groups from the queue and leaves reports."""

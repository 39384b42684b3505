"""A guard as a web service: FastAPI in front, one worker that runs encoder and head on batches behind."""

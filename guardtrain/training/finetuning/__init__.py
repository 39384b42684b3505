"""LoRA on an encoder's image tower: adapters, their training on images, and the tuned encoder they are merged into."""

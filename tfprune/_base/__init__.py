"""What all other folders stand on: argument checks, frozen configs, text, files."""

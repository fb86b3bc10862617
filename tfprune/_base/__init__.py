"""The foundation of all other folders: argument checks, frozen configs, text, files."""

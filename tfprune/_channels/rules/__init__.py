"""The flow of channels through each type of layer."""

"""How channels flow through each type of layer."""

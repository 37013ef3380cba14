"""What only a driver needs: it starts the node, and shows what workers print."""

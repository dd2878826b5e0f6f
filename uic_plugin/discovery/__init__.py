"""Classes from the features of a frozen network, without labels. Free of hosts."""

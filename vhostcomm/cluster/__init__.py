"""Hosts that share their guests' identities through etcd, and tell each other which guests run on them."""

"""gossipmesh: a service mesh for virtual machines with no control plane in the path."""

__version__ = "0.2.0"

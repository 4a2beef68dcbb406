//! Services through the in-process proxy, pod addresses, virtual addresses.

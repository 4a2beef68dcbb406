//! One module a controller: reconcile(view, key, now) -> writes.

//! The API over HTTP: who you are, what you may, read, write, watch, discovery.

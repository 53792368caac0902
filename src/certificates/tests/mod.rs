//! Certificates from real files, a real authority (Debian's `pebble`) and the local CA, shown by a
//! real proxy to a real client.

mod authority;
mod files;
mod renewal;
mod support;

//! Stories of the data plane, told with real sockets.

mod support;

mod basics;
mod edge;
mod failures;
mod life;
mod lines;
mod plain;
mod protocols;
mod secure;
mod sides;
